export { assistantRun } from './run.ts'
