import { describeFuzz } from './fuzz.ts'

describeFuzz('v2', 600)
describeFuzz('v1', 300)
