/** What every provider must keep, for gVisor. */
process.env['TEST_SANDBOX_PROVIDER'] = 'runsc'

for (const table of ['exec', 'failures', 'filesystem', 'network', 'processes', 'security']) {
  await import(`./${table}.test.ts`)
}
