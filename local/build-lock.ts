import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'

/** A lock that the system takes back when its holder dies. `isHeld` is false where another has it and we do not wait. */
export async function takeBuildLock(
  name: string,
  waits: boolean,
): Promise<Disposable & { isHeld: boolean }> {
  for (;;) {
    const database = new DatabaseSync(`${name}.lock`)
    const isHeld = begin(database)
    if (isHeld || !waits) return { isHeld, [Symbol.dispose]: () => database.close() }
    database.close()
    await sleep(300)
  }
}

function begin(database: DatabaseSync): boolean {
  try {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
    return true
  } catch (error) {
    if ((error as { errcode?: number }).errcode === sqliteBusy) return false
    throw error
  }
}

const sqliteBusy = 5
