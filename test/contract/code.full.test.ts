import { nodeClient, oldNodeClient, oldPythonClient, pythonClient } from './clients.ts'
import { describeCode } from './code.ts'

describeCode({
  'npm openai': { sdk: nodeClient('openai'), inV1: false },
  'npm openai 6': { sdk: nodeClient('openai-6'), inV1: false },
  'npm openai 5': { sdk: nodeClient('openai-5'), inV1: false },
  'npm openai 4': { sdk: nodeClient('openai-4'), inV1: false },
  'npm openai 4.36': { sdk: oldNodeClient('openai-4-36'), inV1: true },
  'npm openai 4.20': { sdk: oldNodeClient('openai-4-20'), inV1: true },
  'Python openai 3.54.0': { sdk: pythonClient('3.54.0'), inV1: false },
  'Python openai 2.54.0': { sdk: pythonClient('2.54.0'), inV1: false },
  'Python openai 1.109.1': { sdk: pythonClient('1.109.1'), inV1: false },
  'Python openai 1.20.0': { sdk: oldPythonClient('1.20.0'), inV1: true },
  'Python openai 1.3.9': { sdk: oldPythonClient('1.3.9'), inV1: true },
})
