import { expect, test } from 'vitest'

import { InvalidError } from '../../sandbox/index.ts'
import { seccompFilter } from '../../sandbox/seccomp.ts'

const ALLOW = 0x7fff0000
const KILL = 0x80000000
const EPERM = 0x00050001
const ENOSYS = 0x00050026

const AUDIT = { x64: 0xc000003e, arm64: 0xc00000b7 }

type Call = { audit?: number; number: number; args?: number[] }

/** What the kernel does with a program of classic BPF, for the instructions that a filter may have. */
function verdict(program: Buffer, { audit = AUDIT.x64, number, args = [] }: Call): number {
  const data = Buffer.alloc(64)
  data.writeUInt32LE(number, 0)
  data.writeUInt32LE(audit, 4)
  for (const [index, arg] of args.entries()) data.writeBigUInt64LE(BigInt(arg), 16 + 8 * index)
  let accumulator = 0
  for (let at = 0; at < program.length;) {
    const code = program.readUInt16LE(at)
    const k = program.readUInt32LE(at + 4)
    const jump = (holds: boolean) => 8 * (1 + program.readUInt8(at + (holds ? 2 : 3)))
    if (code === 0x20) accumulator = data.readUInt32LE(k)
    else if (code === 0x54) accumulator = (accumulator & k) >>> 0
    else if (code === 0x06) return k
    else if (code === 0x15) at += jump(accumulator === k) - 8
    else if (code === 0x45) at += jump((accumulator & k) !== 0) - 8
    else throw new Error(`no such instruction: ${code}`)
    at += 8
  }
  throw new Error('the program does not end')
}

// Numbers from the kernel's own tables: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
test.each([
  ['mount', 165, 40],
  ['umount2', 166, 39],
  ['pivot_root', 155, 41],
  ['unshare', 272, 97],
  ['setns', 308, 268],
  ['add_key', 248, 217],
  ['request_key', 249, 218],
  ['keyctl', 250, 219],
  ['bpf', 321, 280],
  ['perf_event_open', 298, 241],
  ['io_uring_setup', 425, 425],
  ['io_uring_enter', 426, 426],
  ['io_uring_register', 427, 427],
  ['userfaultfd', 323, 282],
  ['ptrace', 101, 117],
  ['process_vm_readv', 310, 270],
  ['process_vm_writev', 311, 271],
  ['kexec_load', 246, 104],
  ['init_module', 175, 105],
  ['finit_module', 313, 273],
  ['delete_module', 176, 106],
  ['personality', 135, 92],
  ['fsopen', 430, 430],
  ['move_mount', 429, 429],
])('%s is refused on both architectures', (_, x64, arm64) => {
  expect(verdict(seccompFilter('x64'), { number: x64 })).toBe(EPERM)
  expect(verdict(seccompFilter('arm64'), { number: arm64, audit: AUDIT.arm64 })).toBe(EPERM)
})

test.each([
  ['read', 0, 63],
  ['write', 1, 64],
  ['execve', 59, 221],
  ['memfd_create', 319, 279],
  ['prctl', 157, 167],
  ['getpid', 39, 172],
  ['exit_group', 231, 94],
])('%s is allowed on both architectures', (_, x64, arm64) => {
  expect(verdict(seccompFilter('x64'), { number: x64 })).toBe(ALLOW)
  expect(verdict(seccompFilter('arm64'), { number: arm64, audit: AUDIT.arm64 })).toBe(ALLOW)
})

const x64 = seccompFilter('x64')
const call = { clone: 56, socket: 41, ioctl: 16, mknod: 133, mknodat: 259, clone3: 435 }

test('calls of another architecture end the process', () => {
  expect(verdict(x64, { number: 0, audit: 0x40000003 })).toBe(KILL)
  expect(verdict(x64, { number: 0, audit: AUDIT.arm64 })).toBe(KILL)
})

test('x32 calls are refused', () => {
  expect(verdict(x64, { number: 0x40000000 })).toBe(EPERM)
  expect(verdict(x64, { number: 0x40000000 + 165 })).toBe(EPERM)
})

test.each([
  ['CLONE_NEWNS', 0x00020000],
  ['CLONE_NEWCGROUP', 0x02000000],
  ['CLONE_NEWUTS', 0x04000000],
  ['CLONE_NEWIPC', 0x08000000],
  ['CLONE_NEWUSER', 0x10000000],
  ['CLONE_NEWPID', 0x20000000],
  ['CLONE_NEWNET', 0x40000000],
])('clone() with %s is refused', (_, flag) => {
  expect(verdict(x64, { number: call.clone, args: [flag | 17] })).toBe(EPERM)
})

test('clone() for threads and forks is allowed, and clone3() is not there', () => {
  const thread = 0x003d0f00
  expect(verdict(x64, { number: call.clone, args: [thread] })).toBe(ALLOW)
  expect(verdict(x64, { number: call.clone, args: [17] })).toBe(ALLOW)
  expect(verdict(x64, { number: call.clone3 })).toBe(ENOSYS)
})

test.each([
  ['AF_UNIX', 1, ALLOW],
  ['AF_INET', 2, ALLOW],
  ['AF_INET6', 10, ALLOW],
  ['AF_NETLINK', 16, EPERM],
  ['AF_PACKET', 17, EPERM],
  ['AF_ALG', 38, EPERM],
  ['AF_VSOCK', 40, EPERM],
])('sockets of %s', (_, family, expected) => {
  expect(verdict(x64, { number: call.socket, args: [family, 1, 0] })).toBe(expected)
})

test('what is typed into terminals is refused, other requests are allowed', () => {
  expect(verdict(x64, { number: call.ioctl, args: [0, 0x5412] })).toBe(EPERM)
  expect(verdict(x64, { number: call.ioctl, args: [0, 0x541c] })).toBe(EPERM)
  expect(verdict(x64, { number: call.ioctl, args: [0, 0x5401] })).toBe(ALLOW)
})

test('devices are refused, FIFOs and files may be made', () => {
  expect(verdict(x64, { number: call.mknod, args: [0, 0o020666] })).toBe(EPERM)
  expect(verdict(x64, { number: call.mknodat, args: [0, 0, 0o060666] })).toBe(EPERM)
  expect(verdict(x64, { number: call.mknod, args: [0, 0o010666] })).toBe(ALLOW)
  expect(verdict(x64, { number: call.mknodat, args: [0, 0, 0o100666] })).toBe(ALLOW)
})

test('there is no filter for an architecture without a table', () => {
  expect(() => seccompFilter('mips')).toThrow(InvalidError)
})
