import { describeClients, oldNodeClient, oldPythonClient } from './clients.ts'

/** The last generation of each language that sends assistants=v1; the first ones are in sdk.full.test.ts. */
describeClients({
  'npm openai 4.36': oldNodeClient('openai-4-36'),
  'Python openai 1.20.0': oldPythonClient('1.20.0'),
})
