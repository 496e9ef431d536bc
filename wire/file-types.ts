/** What file search and the code interpreter take, by the ending of the name. */
const types: Record<string, string> = {
  c: 'text/x-c',
  cpp: 'text/x-c++',
  cs: 'text/x-csharp',
  css: 'text/css',
  csv: 'text/csv',
  doc: 'application/msword',
  docx: 'application/vnd.openxmlformats-officedocument.wordprocessingml.document',
  gif: 'image/gif',
  go: 'text/x-golang',
  html: 'text/html',
  java: 'text/x-java',
  jpeg: 'image/jpeg',
  jpg: 'image/jpeg',
  js: 'text/javascript',
  json: 'application/json',
  jsonl: 'application/jsonl',
  md: 'text/markdown',
  pdf: 'application/pdf',
  php: 'text/x-php',
  png: 'image/png',
  pptx: 'application/vnd.openxmlformats-officedocument.presentationml.presentation',
  py: 'text/x-python',
  rb: 'text/x-ruby',
  sh: 'application/x-sh',
  tar: 'application/x-tar',
  tex: 'text/x-tex',
  ts: 'application/typescript',
  txt: 'text/plain',
  webp: 'image/webp',
  xlsx: 'application/vnd.openxmlformats-officedocument.spreadsheetml.sheet',
  xml: 'application/xml',
  zip: 'application/zip',
}

const unknown = 'application/octet-stream'

/** What programs say when they have not looked, and what is taken for said where they say nothing. */
const vague = [unknown, 'text/plain']

/** The media type of a file: what its sender said, unless that is vague or no type at all and its name says more. */
export function mediaType(filename: string, said: string | null): string {
  const ending = /\.(\w+)$/.exec(filename)?.[1]?.toLowerCase() ?? ''
  const byName = Object.hasOwn(types, ending) ? types[ending] : undefined
  if (said === null || !isMediaType(said)) return byName ?? unknown
  return vague.includes(said) ? (byName ?? said) : said
}

/** Whether it is a type and a subtype, and of at most 255 characters. */
export function isMediaType(text: string): boolean {
  return text.length <= 255 && /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+$/.test(text)
}
