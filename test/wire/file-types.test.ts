import { expect, test } from 'vitest'

import { isMediaType, mediaType } from '../../wire/file-types.ts'

test.each(['a.constructor', 'a.toString', 'a.__proto__'])(
  '%s has an ending that says nothing',
  (filename) => {
    expect(mediaType(filename, null)).toBe('application/octet-stream')
  },
)

test.each([
  ['text/plain', true],
  ['application/vnd.api+json', true],
  ['text', false],
  ['text/', false],
  ['text/plain; charset=utf-8', false],
  ['text/pl\0ain', false],
  ['text/plain\n', false],
  [`text/${'x'.repeat(250)}`, true],
  [`text/${'x'.repeat(251)}`, false],
])('%j is a media type: %s', (text, expected) => {
  expect(isMediaType(text)).toBe(expected)
})
