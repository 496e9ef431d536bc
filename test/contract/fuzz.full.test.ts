import { describeFuzz } from './fuzz.ts'

describeFuzz('v2', 1200)
describeFuzz('v1', 600)
