import { InvalidError } from './errors.ts'
import {
  type Architecture,
  BLOCK_DEVICE,
  CHARACTER_DEVICE,
  denied,
  ENOSYS,
  EPERM,
  FAMILIES,
  FILE_TYPE,
  NAMESPACE_FLAGS,
  TIOCLINUX,
  TIOCSTI,
} from './seccomp.ts'

/** The rules of seccomp.ts as docker and other OCI runtimes take them. */
export interface SeccompProfile {
  defaultAction: 'SCMP_ACT_ALLOW'
  /** Calls of another than these end the process. */
  architectures: string[]
  syscalls: SeccompRule[]
}

export interface SeccompRule {
  names: string[]
  action: 'SCMP_ACT_ERRNO'
  errnoRet: number
  args?: SeccompCondition[]
}

type SeccompCondition = {
  index: number
  value: number
  valueTwo?: number
  op: 'SCMP_CMP_EQ' | 'SCMP_CMP_GT' | 'SCMP_CMP_MASKED_EQ'
}

const NAMES: Record<Architecture, string> = { x64: 'SCMP_ARCH_X86_64', arm64: 'SCMP_ARCH_AARCH64' }
/** What the kernel looks at; the upper half of an argument is no way around a rule. */
const LOW_HALF = 0xffffffff

export function seccompProfile(architecture: string): SeccompProfile {
  const calls = denied[architecture as Architecture] as Record<string, number> | undefined
  if (!calls) throw new InvalidError(`There is no list of system calls for ${architecture}.`)
  return {
    defaultAction: 'SCMP_ACT_ALLOW',
    architectures: [NAMES[architecture as Architecture]],
    syscalls: [
      refuse(EPERM, Object.keys(calls)),
      refuse(ENOSYS, ['clone3']),
      ...bitsOf(NAMESPACE_FLAGS).map((bit) => refuse(EPERM, ['clone'], masked(0, bit, bit))),
      ...otherFamilies(),
      ...[TIOCSTI, TIOCLINUX].map((value) => refuse(EPERM, ['ioctl'], masked(1, LOW_HALF, value))),
      ...[CHARACTER_DEVICE, BLOCK_DEVICE].flatMap((type) => [
        refuse(EPERM, ['mknod'], masked(1, FILE_TYPE, type)),
        refuse(EPERM, ['mknodat'], masked(2, FILE_TYPE, type)),
      ]),
    ],
  }
}

// One condition each: runtimes take several of one argument as alternatives.
function refuse(errnoRet: number, names: string[], condition?: SeccompCondition): SeccompRule {
  return { names, action: 'SCMP_ACT_ERRNO', errnoRet, ...(condition && { args: [condition] }) }
}

/** Holds where the bits under the mask are those of the value. */
function masked(index: number, mask: number, value: number): SeccompCondition {
  return { index, value: mask, valueTwo: value, op: 'SCMP_CMP_MASKED_EQ' }
}

function bitsOf(flags: number): number[] {
  return Array.from({ length: 32 }, (_, bit) => 2 ** bit).filter((bit) => (flags & bit) !== 0)
}

function otherFamilies(): SeccompRule[] {
  const last = Math.max(...FAMILIES)
  const between = Array.from({ length: last }, (_, family) => family)
  return [
    ...between
      .filter((family) => !FAMILIES.includes(family))
      .map((value) => refuse(EPERM, ['socket'], { index: 0, value, op: 'SCMP_CMP_EQ' })),
    refuse(EPERM, ['socket'], { index: 0, value: last, op: 'SCMP_CMP_GT' }),
  ]
}
