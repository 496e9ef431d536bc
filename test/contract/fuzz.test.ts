import { describeFuzz } from './fuzz.ts'

describeFuzz('v2', 80)
