import { InvalidError } from './errors.ts'

export type Architecture = 'x64' | 'arm64'

/**
 * The system calls that strangers' code does not need and kernels have had to be mended for: a BPF program for
 * seccomp(2). They fail with EPERM; calls of another architecture end the process.
 */
export function seccompFilter(architecture: string): Buffer {
  const table = tables[architecture as Architecture] as Table | undefined
  if (!table) throw new InvalidError(`There is no list of system calls for ${architecture}.`)
  return assemble([
    ...checkArchitecture(table),
    ...table.denied.flatMap((number) => [when(number), deny]),
    // It hides its flags in memory, where a filter cannot look; programs then take clone().
    when(table.clone3),
    refuse(ENOSYS),
    ...denyFlags(table.clone, NAMESPACE_FLAGS),
    ...allowFamilies(table.socket),
    ...denyValues(table.ioctl, 1, [TIOCSTI, TIOCLINUX]),
    ...table.mknod.flatMap(({ number, modeArgument }) => denyDevices(number, modeArgument)),
    allow,
  ])
}

type Table = {
  audit: number
  denied: number[]
  clone: number
  clone3: number
  socket: number
  ioctl: number
  mknod: { number: number; modeArgument: number }[]
  /** x32 calls have this bit; they are the same calls under other numbers. */
  foreignBit?: number
}

/** The same numbers on every architecture: calls that are younger than their unification. */
const unified = {
  pidfd_getfd: 438,
  io_uring_setup: 425,
  io_uring_enter: 426,
  io_uring_register: 427,
  open_tree: 428,
  move_mount: 429,
  fsopen: 430,
  fsconfig: 431,
  fsmount: 432,
  fspick: 433,
  mount_setattr: 442,
  quotactl_fd: 443,
  memfd_secret: 447,
  statmount: 457,
  listmount: 458,
  open_tree_attr: 467,
}

export const denied: Record<Architecture, Record<string, number>> = {
  x64: {
    ...unified,
    ptrace: 101,
    syslog: 103,
    uselib: 134,
    personality: 135,
    vhangup: 153,
    modify_ldt: 154,
    pivot_root: 155,
    adjtimex: 159,
    chroot: 161,
    acct: 163,
    settimeofday: 164,
    mount: 165,
    umount2: 166,
    swapon: 167,
    swapoff: 168,
    reboot: 169,
    sethostname: 170,
    setdomainname: 171,
    iopl: 172,
    ioperm: 173,
    init_module: 175,
    delete_module: 176,
    quotactl: 179,
    lookup_dcookie: 212,
    clock_settime: 227,
    kexec_load: 246,
    add_key: 248,
    request_key: 249,
    keyctl: 250,
    unshare: 272,
    perf_event_open: 298,
    fanotify_init: 300,
    name_to_handle_at: 303,
    open_by_handle_at: 304,
    clock_adjtime: 305,
    setns: 308,
    process_vm_readv: 310,
    process_vm_writev: 311,
    kcmp: 312,
    finit_module: 313,
    kexec_file_load: 320,
    bpf: 321,
    userfaultfd: 323,
  },
  arm64: {
    ...unified,
    lookup_dcookie: 18,
    umount2: 39,
    mount: 40,
    pivot_root: 41,
    chroot: 51,
    vhangup: 58,
    quotactl: 60,
    acct: 89,
    personality: 92,
    unshare: 97,
    kexec_load: 104,
    init_module: 105,
    delete_module: 106,
    clock_settime: 112,
    syslog: 116,
    ptrace: 117,
    reboot: 142,
    sethostname: 161,
    setdomainname: 162,
    settimeofday: 170,
    adjtimex: 171,
    add_key: 217,
    request_key: 218,
    keyctl: 219,
    swapon: 224,
    swapoff: 225,
    perf_event_open: 241,
    fanotify_init: 262,
    name_to_handle_at: 264,
    open_by_handle_at: 265,
    clock_adjtime: 266,
    setns: 268,
    process_vm_readv: 270,
    process_vm_writev: 271,
    kcmp: 272,
    finit_module: 273,
    bpf: 280,
    userfaultfd: 282,
    kexec_file_load: 294,
  },
}

const tables: Record<Architecture, Table> = {
  x64: {
    audit: 0xc000003e,
    denied: Object.values(denied.x64),
    clone: 56,
    clone3: 435,
    socket: 41,
    ioctl: 16,
    mknod: [
      { number: 133, modeArgument: 1 },
      { number: 259, modeArgument: 2 },
    ],
    foreignBit: 0x40000000,
  },
  arm64: {
    audit: 0xc00000b7,
    denied: Object.values(denied.arm64),
    clone: 220,
    clone3: 435,
    socket: 198,
    ioctl: 29,
    mknod: [{ number: 33, modeArgument: 2 }],
  },
}

export const EPERM = 1
export const ENOSYS = 38
/** CLONE_NEWTIME (bit 7) is no flag of clone(), where these bits are a signal. */
export const NAMESPACE_FLAGS = 0x7e020000
/** AF_UNIX, AF_INET, AF_INET6. What is left out: vsock reaches hypervisors, packet and netlink the kernel's depths. */
export const FAMILIES = [1, 2, 10]
export const TIOCSTI = 0x5412
export const TIOCLINUX = 0x541c
export const FILE_TYPE = 0o170000
export const CHARACTER_DEVICE = 0o020000
export const BLOCK_DEVICE = 0o060000

/** One instruction of classic BPF; `skip` is how many follow that are left out where the condition does not hold. */
type Instruction = { code: number; k: number; ifTrue?: number; ifFalse?: number }

const LOAD = 0x20
const EQUALS = 0x15
const HAS_BITS = 0x45
const AND = 0x54
const RETURN = 0x06

const allow: Instruction = { code: RETURN, k: 0x7fff0000 }
const deny = refuse(EPERM)
const killProcess: Instruction = { code: RETURN, k: 0x80000000 }

function refuse(errno: number): Instruction {
  return { code: RETURN, k: 0x00050000 | errno }
}

const loadNumber: Instruction = { code: LOAD, k: 0 }
const loadArchitecture: Instruction = { code: LOAD, k: 4 }
/** The low half of an argument: what these calls look at has 32 bits. */
const loadArgument = (index: number): Instruction => ({ code: LOAD, k: 16 + 8 * index })

/** The next instruction only for this value, and `length` of them are left out else. */
const when = (k: number, length = 1): Instruction => ({ code: EQUALS, k, ifFalse: length })

function checkArchitecture({ audit, foreignBit }: Table): Instruction[] {
  const isForeign: Instruction[] =
    foreignBit === undefined ? [] : [{ code: HAS_BITS, k: foreignBit, ifFalse: 1 }, deny]
  return [
    loadArchitecture,
    { code: EQUALS, k: audit, ifTrue: 1 },
    killProcess,
    loadNumber,
    ...isForeign,
  ]
}

function forCall(number: number, body: Instruction[]): Instruction[] {
  // What the body loads is in place of the call's number for the rest of the program.
  const whole = [...body, loadNumber]
  return [when(number, whole.length), ...whole]
}

function denyFlags(number: number, flags: number): Instruction[] {
  return forCall(number, [loadArgument(0), { code: HAS_BITS, k: flags, ifFalse: 1 }, deny])
}

function allowFamilies(number: number): Instruction[] {
  return forCall(number, [
    loadArgument(0),
    ...FAMILIES.flatMap((family) => [when(family), allow]),
    deny,
  ])
}

function denyValues(number: number, argument: number, values: number[]): Instruction[] {
  return forCall(number, [
    loadArgument(argument),
    ...values.flatMap((value) => [when(value), deny]),
  ])
}

/** FIFOs, sockets and plain files may be made. */
function denyDevices(number: number, modeArgument: number): Instruction[] {
  return forCall(number, [
    loadArgument(modeArgument),
    { code: AND, k: FILE_TYPE },
    ...[CHARACTER_DEVICE, BLOCK_DEVICE].flatMap((type) => [when(type), deny]),
  ])
}

/** struct sock_filter: code (16 bits), jt, jf (8 bits each), k (32 bits). */
function assemble(program: Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8)
  for (const [index, { code, k, ifTrue = 0, ifFalse = 0 }] of program.entries()) {
    bytes.writeUInt16LE(code, index * 8)
    bytes.writeUInt8(ifTrue, index * 8 + 2)
    bytes.writeUInt8(ifFalse, index * 8 + 3)
    bytes.writeUInt32LE(k >>> 0, index * 8 + 4)
  }
  return bytes
}
