import { describeClients, nodeClient, pythonClient } from './clients.ts'

/** The newest generation of each language; all of them are in sdk.full.test.ts. */
describeClients({
  'npm openai': nodeClient('openai'),
  'Python openai 3.54.0': pythonClient('3.54.0'),
})
