import { defineConfig, mergeConfig } from 'vitest/config'

import base from './vitest.config.ts'

/** `npm run test:full`: what takes long, or needs programs that not everybody has. */
export default mergeConfig(
  { ...base, test: { ...base.test, include: [], exclude: [] } },
  defineConfig({
    test: {
      include: ['test/**/*.full.test.ts'],
      exclude: ['**/node_modules/**'],
      testTimeout: 300_000,
    },
  }),
)
