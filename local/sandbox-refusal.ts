/** Why the sandbox's root could not be built: both are sentences for whoever runs the server. */
export class SandboxRefusal extends Error {
  readonly remedy: string

  constructor(why: string, remedy: string, options?: ErrorOptions) {
    super(why, options)
    this.remedy = remedy
  }
}

export const otherRoots =
  'or set SANDBOX_ROOT or SANDBOX_IMAGE to a root made from sandbox/rootfs (debootstrap.sh, Dockerfile)'
