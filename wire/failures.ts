/** The type of an activity's failure that says nothing against the provider: the same turn is scheduled anew. */
export const workerLost = 'worker_lost'
