import { describeClients, nodeClient, pythonClient } from './clients.ts'

/** Every generation of the official clients that speaks assistants=v2. */
describeClients({
  'npm openai': nodeClient('openai'),
  'npm openai 6': nodeClient('openai-6'),
  'npm openai 5': nodeClient('openai-5'),
  'npm openai 4': nodeClient('openai-4'),
  'Python openai 3.54.0': pythonClient('3.54.0'),
  'Python openai 2.54.0': pythonClient('2.54.0'),
  'Python openai 1.109.1': pythonClient('1.109.1'),
})
