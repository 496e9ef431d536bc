/** The sandbox could not be started; the message holds what its launcher said. */
export class SandboxStartError extends Error {
  override name = 'SandboxStartError'
}

/** The sandbox is gone, so that what was asked of it will not be answered. */
export class SandboxGoneError extends Error {
  override name = 'SandboxGoneError'
}

/** A process in the sandbox took longer than it was given, and was killed. */
export class SandboxTimeoutError extends Error {
  override name = 'SandboxTimeoutError'
}

/** `terminate()` was called before. */
export class ClientClosedError extends Error {
  override name = 'ClientClosedError'
}

/** The caller asked for what cannot be: a path outside /mnt/data, an empty argv. */
export class InvalidError extends Error {
  override name = 'InvalidError'
}

/** What has to do with the files of a sandbox. `path` is the one in the sandbox. */
export class SandboxFilesystemError extends Error {
  override name = 'SandboxFilesystemError'
  readonly path: string

  constructor(message: string, path: string, options?: ErrorOptions) {
    super(`${message}: ${path}`, options)
    this.path = path
  }
}

export class SandboxFilesystemNotFoundError extends SandboxFilesystemError {
  override name = 'SandboxFilesystemNotFoundError'
}

export class SandboxFilesystemIsADirectoryError extends SandboxFilesystemError {
  override name = 'SandboxFilesystemIsADirectoryError'
}

export class SandboxFilesystemNotADirectoryError extends SandboxFilesystemError {
  override name = 'SandboxFilesystemNotADirectoryError'
}

/** It is a link, a FIFO or something else that the host does not touch, or it may not be read. */
export class SandboxFilesystemPermissionError extends SandboxFilesystemError {
  override name = 'SandboxFilesystemPermissionError'
}

export class SandboxFilesystemDirectoryNotEmptyError extends SandboxFilesystemError {
  override name = 'SandboxFilesystemDirectoryNotEmptyError'
}

/** It is larger than can be held in memory: `openRead` reads files of any size. */
export class SandboxFilesystemFileTooLargeError extends SandboxFilesystemError {
  override name = 'SandboxFilesystemFileTooLargeError'
}
