/** The bytes of a row that exists are not where they belong: they were removed meanwhile, or by somebody else. */
export class MissingBlob extends Error {
  constructor(key: string, place: string, options?: ErrorOptions) {
    super(`There are no bytes ${key} in ${place}`, options)
    this.name = 'MissingBlob'
  }
}
