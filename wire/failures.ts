/** The type of an activity's failure that says nothing against the provider: the same turn is scheduled anew. */
export const workerLost = 'worker_lost'

/** Those that a model's provider is the reason of: where the run names a model to fall back on, that one is asked. */
export const modelFailures: string[] = ['server_error', 'rate_limit_exceeded', 'invalid_prompt']
