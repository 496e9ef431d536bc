import { defineConfig } from 'vitest/config'

/** `npm test`: everything that ends within minutes. The kill matrix and the SDK generations are in vitest.full.config.ts. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/**/*.full.test.ts', '**/node_modules/**'],
    globalSetup: ['test/support/global-setup.ts'],
    setupFiles: ['test/support/contract-setup.ts'],
    pool: 'forks',
    // Two cores, shared with Postgres and Temporal.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
})
