import { loadConfig } from '../config.ts'
import { createLogger } from '../log.ts'
import { openStore, type Store } from '../store/index.ts'
import { defaultProjectName } from '../store/keys.ts'
import { databaseOf } from './database-of.ts'

const usage = `Usage:
  npm run admin -- project create NAME
  npm run admin -- key create [--project NAME] [--name TEXT]   prints the key, once
  npm run admin -- key list
  npm run admin -- key revoke KEY_ID`

/** `npm run admin`: projects and keys, in the database of the running server or the one that DATABASE_URL names. */
async function main(args: string[]): Promise<void> {
  const { words, options } = read(args)
  const config = loadConfig(process.env)
  const log = createLogger(config.logLevel)
  await using database = await databaseOf(config, log)
  await using store = await openStore({ databaseUrl: database.url, log })
  for (const line of await act(store, words, options)) process.stdout.write(`${line}\n`)
}

async function act(
  store: Store,
  [noun, verb, argument, ...rest]: string[],
  options: Map<string, string>,
): Promise<string[]> {
  if (rest.length > 0) throw new Error(usage)
  switch (`${noun} ${verb}`) {
    case 'project create': {
      if (!argument) throw new Error(usage)
      if (await store.keys.findProject(argument)) {
        throw new Error(`There is a project named ${argument} already`)
      }
      const project = await store.keys.createProject(argument)
      return [`${project.id}  ${project.name}`]
    }
    case 'key create': {
      const name = options.get('project') ?? defaultProjectName
      const project =
        name === defaultProjectName
          ? await store.keys.defaultProject()
          : await store.keys.findProject(name)
      if (!project)
        throw new Error(`There is no project ${name}; make it with: project create ${name}`)
      const { row, key } = await store.keys.createKey(project.id, options.get('name') ?? '')
      return [
        key,
        `${row.id} of project ${project.name}. The key is shown this once; the server keeps its hash only.`,
        'From now on this server answers to its keys alone.',
      ]
    }
    case 'key list': {
      const keys = await store.keys.listKeys()
      return keys.map(
        ({ id, tail, name, project_id, created_at, revoked_at }) =>
          `${id}  ...${tail}  ${project_id}  ${created_at.toISOString()}  ${revoked_at ? 'revoked' : 'in force'}  ${name}`,
      )
    }
    case 'key revoke': {
      if (!argument) throw new Error(usage)
      const revoked = await store.keys.revokeKey(argument)
      if (!revoked) throw new Error(`There is no key ${argument}; see: key list`)
      return [
        `${revoked.id} is revoked. A server that ever had a key stays closed to everybody without one.`,
      ]
    }
    default:
      throw new Error(usage)
  }
}

function read(args: string[]): { words: string[]; options: Map<string, string> } {
  const words: string[] = []
  const options = new Map<string, string>()
  for (let i = 0; i < args.length; i += 1) {
    const arg = args[i] ?? ''
    const value = args[i + 1]
    if (!arg.startsWith('--')) words.push(arg)
    else if ((arg === '--project' || arg === '--name') && value !== undefined) {
      options.set(arg.slice(2), value)
      i += 1
    } else throw new Error(`${arg} is not known here, or has no value.\n${usage}`)
  }
  return { words, options }
}

try {
  await main(process.argv.slice(2))
  process.exit(0)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}
