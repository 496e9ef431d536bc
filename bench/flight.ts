/** Calls `act` `total` times, or until `isOver`, with `width` calls under way at any time. */
export async function inFlight(
  width: number,
  total: number,
  stop: AbortSignal,
  act: () => Promise<void>,
  isOver = () => false,
): Promise<void> {
  let begun = 0
  const lane = async (): Promise<void> => {
    while (begun < total && !isOver()) {
      stop.throwIfAborted()
      begun += 1
      await act()
    }
  }
  await Promise.all(Array.from({ length: width }, lane))
}
