/** What every provider must keep, for docker. */
process.env['TEST_SANDBOX_PROVIDER'] = 'docker'

for (const table of ['exec', 'failures', 'filesystem', 'network', 'processes', 'security']) {
  await import(`./${table}.test.ts`)
}
