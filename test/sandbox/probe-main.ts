/** Prints what the probe of bubblewrap says, for whoever this process is. */
import { testProviders } from './support-providers.ts'

const provider = testProviders(process.argv[2] ?? '').find(({ name }) => name === 'bubblewrap')
console.log(JSON.stringify(await provider?.probe()))
