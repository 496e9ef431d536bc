import type { NamedResources } from '../store/resources.ts'
import type { ToolRow } from '../store/rows.ts'
import type { Tool, ToolResources } from './assistants.schema.ts'

/** A tool as the original echoed it: with the defaults that the client left out (spec D12, D13). */
export function filledTool(tool: Tool): ToolRow {
  switch (tool.type) {
    case 'code_interpreter':
      return { type: 'code_interpreter' }
    case 'file_search': {
      const { ranking_options: ranking, ...rest } = tool.file_search ?? {}
      const ranker = ranking?.ranker === 'auto' ? undefined : ranking?.ranker
      return {
        type: 'file_search',
        file_search: {
          ...rest,
          ranking_options: {
            ranker: ranker ?? 'default_2024_08_21',
            score_threshold: ranking?.score_threshold ?? 0,
            hybrid_search: ranking?.hybrid_search ?? null,
          },
        },
      }
    }
    case 'function': {
      const { parameters, strict, ...rest } = tool.function
      return {
        type: 'function',
        function: {
          ...rest,
          parameters: parameters ?? {
            type: 'object',
            properties: {},
            // Endpoints refuse a strict function that is open.
            ...(strict && { additionalProperties: false }),
          },
          strict: strict ?? false,
        },
      }
    }
    default:
      return tool satisfies never
  }
}

/** The resources that a client names. A tool's entry replaces the one before; an empty one says nothing. */
export function namedResources(given: ToolResources | null | undefined): NamedResources {
  const fileIds = given?.code_interpreter?.file_ids
  const { vector_store_ids: ids, vector_stores: [helper] = [] } = given?.file_search ?? {}
  return {
    ...(fileIds && { code_interpreter: { file_ids: fileIds } }),
    ...(ids && { file_search: { vector_store_ids: ids } }),
    ...(helper && {
      file_search: {
        new_store: {
          file_ids: helper.file_ids ?? [],
          chunking_strategy: helper.chunking_strategy ?? { type: 'auto' },
          metadata: helper.metadata ?? {},
        },
      },
    }),
  }
}
