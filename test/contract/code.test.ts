import { nodeClient, oldNodeClient, oldPythonClient, pythonClient } from './clients.ts'
import { describeCode } from './code.ts'

/** The newest generation of each language and dialect; all of them are in code.full.test.ts. */
describeCode({
  'npm openai': { sdk: nodeClient('openai'), inV1: false },
  'Python openai 3.54.0': { sdk: pythonClient('3.54.0'), inV1: false },
  'npm openai 4.36': { sdk: oldNodeClient('openai-4-36'), inV1: true },
  'Python openai 1.20.0': { sdk: oldPythonClient('1.20.0'), inV1: true },
})
