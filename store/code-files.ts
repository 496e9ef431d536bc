import type { Sql } from './db.ts'
import type { CodeFileRef, FileRow, Json, RunRow } from './rows.ts'

/** The files of code: what it is given, and what it has written. */
export interface CodeFiles {
  /** What is to lie in /mnt/data when code of the run begins. Files that were deleted are in neither list. */
  of(
    run: Pick<RunRow, 'thread_id' | 'project_id' | 'tool_resources' | 'created_at'>,
  ): Promise<DataFiles>
}

export interface DataFiles {
  /**
   * Of the assistant, of the thread and of its messages; each lies under its id, and under `name` as well, which is its id again
   * where code has written over the other.
   */
  given: (DataFile & { name: string; filename: string })[]
  /**
   * What earlier code of the thread has written, by its path under /mnt/data; the newest of each. `isOld`: before this run, so
   * that its model has not seen it being written.
   */
  written: (DataFile & { path: string; isOld: boolean })[]
}

export type DataFile = Pick<FileRow, 'id' | 'bytes' | 'blob'>

export function createCodeFiles(sql: Sql): CodeFiles {
  return {
    async of(run) {
      const [given, written] = await Promise.all([
        sql<DataFile & { filename: string }>(
          `SELECT f.id, f.bytes, f.blob, f.filename FROM files f
           WHERE f.project_id = $1 AND (f.expires_at IS NULL OR f.expires_at > now())
             AND f.id IN (
               SELECT jsonb_array_elements_text($2::jsonb)
               UNION SELECT jsonb_array_elements_text(t.tool_resources -> 'code_interpreter' -> 'file_ids')
                 FROM threads t WHERE t.id = $3)
           ORDER BY f.seq`,
          [
            run.project_id,
            JSON.stringify(run.tool_resources.code_interpreter?.file_ids ?? []),
            run.thread_id,
          ],
        ),
        sql<DataFile & { path: string; isOld: boolean }>(
          `SELECT f.id, f.bytes, f.blob, s.path, f.created_at < $2 AS "isOld"
           FROM sandbox_files s JOIN files f ON f.id = s.file_id WHERE s.thread_id = $1 ORDER BY s.path`,
          [run.thread_id, run.created_at],
        ),
      ])
      const names = new Set<string>()
      const overwritten = new Set(written.map(({ path }) => path))
      return {
        given: given.map((file) => {
          const name = ownName(file.filename, file.id, names)
          return { ...file, name: overwritten.has(name) ? file.id : name }
        }),
        written,
      }
    },
  }
}

/** File systems hold names of 255 bytes; the ending is what tells what a file is. */
function shortened(name: string): string {
  const most = 200
  if (Buffer.byteLength(name) <= most) return name
  const [ending = ''] = /\.[^.]{1,16}$/.exec(name) ?? []
  let stem = ''
  for (const character of name) {
    if (Buffer.byteLength(stem + character + ending) > most) break
    stem += character
  }
  return stem + ending
}

export function usesCode({ tools }: Pick<RunRow, 'tools'>): boolean {
  return tools.some(({ type }) => type === 'code_interpreter')
}

/** A name that no other file in `names` has: two may be called the same. */
function ownName(filename: string, id: string, names: Set<string>): string {
  const last = filename.split('/').at(-1) ?? ''
  const name = last === '' || last === '.' || last === '..' ? id : shortened(last)
  const dot = name.lastIndexOf('.')
  const at = dot > 0 ? dot : name.length
  const free = names.has(name) ? `${name.slice(0, at)}-${id.slice(-6)}${name.slice(at)}` : name
  names.add(free)
  return free
}

/** What code of a run has made since the run's last message, before this turn; both are ids of files. */
export async function madeSinceMessage(
  sql: Sql,
  runId: string,
  turn: number,
): Promise<{ images: string[]; files: string[] }> {
  const calls = await sql<{ outputs: Json[]; files: CodeFileRef[] }>(
    `SELECT outputs, files FROM tool_calls
     WHERE run_id = $1 AND type = 'code_interpreter' AND turn < $2 AND turn >= coalesce(
       (SELECT max(turn) FROM messages WHERE run_id = $1 AND turn < $2 AND NOT superseded), 0)
     ORDER BY turn, idx`,
    [runId, turn],
  )
  return {
    images: calls.flatMap(({ outputs }) => outputs.flatMap(imageOf)),
    // The newest of each path.
    files: [
      ...new Map(
        calls.flatMap(({ files }) => files.map(({ path, file_id }) => [path, file_id] as const)),
      ).values(),
    ],
  }
}

/** An output of a step is what we have written there: logs, or an image. */
function imageOf(output: Json): string[] {
  return output['type'] === 'image' ? [(output['image'] as { file_id: string }).file_id] : []
}
