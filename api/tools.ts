import type { ToolResources as StoredResources, ToolRow } from '../store/rows.ts'
import { ApiError } from '../wire/errors.ts'
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
          },
          strict: strict ?? false,
        },
      }
    }
    default:
      return tool satisfies never
  }
}

/** What is kept of the resources that a client names. A tool's entry replaces the one before; an empty one says nothing. */
export function storedResources(given: ToolResources | null | undefined): StoredResources {
  const fileIds = given?.code_interpreter?.file_ids
  const search = given?.file_search
  if (search?.vector_stores !== undefined) {
    throw new ApiError(400, 'Vector stores are not available on this server yet.', {
      param: 'tool_resources.file_search.vector_stores',
      code: 'unsupported_parameter',
    })
  }
  return {
    ...(fileIds && { code_interpreter: { file_ids: fileIds } }),
    ...(search?.vector_store_ids && {
      file_search: { vector_store_ids: search.vector_store_ids },
    }),
  }
}
