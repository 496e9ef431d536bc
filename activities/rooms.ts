/** So many at once; who comes later waits in line. */
export interface Rooms {
  /** Resolves with a room taken. Rejects with the signal's reason; no room is taken then. */
  take(signal: AbortSignal): Promise<void>
  /** Gives a room back, to whoever has waited for longest. */
  leave(): void
  /** How many wait. */
  waiting(): number
}

/** `onWait` is called when somebody begins to wait. */
export function createRooms(most: number, onWait: () => void): Rooms {
  const line: PromiseWithResolvers<void>[] = []
  let taken = 0
  return {
    async take(signal) {
      signal.throwIfAborted()
      if (taken < most) {
        taken += 1
        return
      }
      const mine = Promise.withResolvers<void>()
      const giveUp = (): void => {
        const at = line.indexOf(mine)
        // It may have been given the room in this very moment.
        if (at >= 0) line.splice(at, 1)
        mine.reject(signal.reason)
      }
      signal.addEventListener('abort', giveUp)
      line.push(mine)
      onWait()
      try {
        await mine.promise
      } finally {
        signal.removeEventListener('abort', giveUp)
      }
    },
    leave() {
      const next = line.shift()
      if (next) next.resolve()
      else taken -= 1
    },
    waiting: () => line.length,
  }
}
