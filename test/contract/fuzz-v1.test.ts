import { describeFuzz } from './fuzz.ts'

describeFuzz('v1', 30)
