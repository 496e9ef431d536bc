import { afterAll, afterEach, expect } from 'vitest'

import { startCapture, takeViolations } from './http-capture.ts'

/** In every test file: what a server of this process answers is what the OpenAPI documents say. */
const stopCapture = startCapture()

afterEach(expectNone)
// The last to run: the servers are closed, and nothing is under way.
afterAll(() => {
  stopCapture()
  expectNone()
})

function expectNone(): void {
  const title = 'answers that are not as the OpenAPI documents say (test/contract/deviations.ts)'
  expect({ [title]: takeViolations() }).toEqual({ [title]: [] })
}
