/** Finds and solves a linear equation in one unknown, such as `3x + 11 = 14`, in a text. */

export type LinearEquation = {
  /** As it was written. */
  text: string
  unknown: string
  /** `null` when every value or no value solves it. */
  solution: string | null
  /** Python that solves the same equation and prints `x = 1`. */
  python: string
}

type Token =
  | { type: 'number'; text: string }
  | { type: 'letter'; text: string }
  | { type: 'operator'; text: string }
  | { type: 'blank'; text: string }
  | { type: 'other'; text: string }

/** A fraction of integers; `d` is positive. */
type Rational = { n: bigint; d: bigint }
/** `a * unknown + b` */
type Linear = { a: Rational; b: Rational }

/** How far an equation may reach to each side of its `=`. */
const REACH = 40
const LONGEST_TEXT = 20_000
const LONGEST_NUMBER = 30

export function findLinearEquation(text: string): LinearEquation | null {
  const tokens = tokenize(text.slice(0, LONGEST_TEXT))
  for (const [at, token] of tokens.entries()) {
    if (token.text !== '=') continue
    const found = equationAround(tokens, at)
    if (found) return found
  }
  return null
}

function tokenize(text: string): Token[] {
  const types = ['number', 'letter', 'blank', 'operator', 'other'] as const
  const pattern = /(\d+(?:\.\d+)?)|((?<![A-Za-z])[A-Za-z](?![A-Za-z]))|(\s+)|([-+*/()=−–×·])|(.)/gsu
  return [...text.matchAll(pattern)].map((match) => {
    const group = match.slice(1).findIndex((part) => part !== undefined)
    return { type: types[group] ?? 'other', text: match[0] }
  })
}

/** Words may touch the equation ("a 3x = 6 I think"): take the longest stretch that reads well. */
function equationAround(tokens: Token[], at: number): LinearEquation | null {
  const fits = (token: Token | undefined) =>
    token !== undefined && token.type !== 'other' && token.text !== '='
  let start = at
  while (at - start < REACH && fits(tokens[start - 1])) start -= 1
  let end = at + 1
  while (end - at < REACH && fits(tokens[end])) end += 1

  for (let left = start; left < at; left += 1) {
    for (let right = end; right > at + 1; right -= 1) {
      const found = readEquation(tokens.slice(left, at), tokens.slice(at + 1, right))
      if (found) return found
    }
  }
  return null
}

function readEquation(leftTokens: Token[], rightTokens: Token[]): LinearEquation | null {
  const written = [...leftTokens, ...rightTokens]
  const letters = new Set(written.flatMap((t) => (t.type === 'letter' ? [t.text] : [])))
  const [unknown] = letters
  if (unknown === undefined || letters.size !== 1) return null
  if (leftTokens[0]?.type === 'blank' || rightTokens.at(-1)?.type === 'blank') return null
  // "x = 5" is an answer already.
  if (!written.some((token) => token.type === 'operator') && !isProduct(leftTokens, rightTokens)) {
    return null
  }
  // Python's own division and decimals are not exact; its integers may stay as they are.
  const isExact = !written.some((token) => /[/.]/.test(token.text))
  const left = readLinear(leftTokens, isExact)
  const right = readLinear(rightTokens, isExact)
  if (!left || !right) return null
  const text = `${joined(leftTokens).trim()} = ${joined(rightTokens).trim()}`
  const a = subtract(left.value.a, right.value.a)
  const b = subtract(left.value.b, right.value.b)
  const solution = a.n === 0n ? null : format(divide(negate(b), a))
  return { text, unknown, solution, python: python(text, unknown, left.python, right.python) }
}

function isProduct(...sides: Token[][]): boolean {
  return sides.some((side) => side.filter((token) => token.type !== 'blank').length > 1)
}

/** Recursive descent over `+ - * / ( )`, with `3x` and `2(x + 1)` as products. */
function readLinear(tokens: Token[], isExact: boolean): { value: Linear; python: string } | null {
  const left = tokens.filter((token) => token.type !== 'blank')
  const take = (...texts: string[]) =>
    left[0] && texts.includes(left[0].text) ? left.shift() : undefined

  const sum = (): Part | null => {
    let total = product()
    for (let sign; total && (sign = take('+', '-', '−', '–'));) {
      const next = product()
      if (!next) return null
      const plus = sign.text === '+'
      const value: Linear = {
        a: plus ? add(total.value.a, next.value.a) : subtract(total.value.a, next.value.a),
        b: plus ? add(total.value.b, next.value.b) : subtract(total.value.b, next.value.b),
      }
      total = { value, python: `${total.python} ${plus ? '+' : '-'} ${next.python}` }
    }
    return total
  }

  const product = (): Part | null => {
    let total = factor()
    while (total) {
      const by = take('*', '×', '·', '/')
      const implicit = !by && (left[0]?.type === 'letter' || left[0]?.text === '(')
      if (!by && !implicit) return total
      const next = factor()
      if (!next) return null
      const dividing = by?.text === '/'
      const value = dividing ? quotient(total.value, next.value) : times(total.value, next.value)
      if (!value) return null
      total = { value, python: `${total.python} ${dividing ? '/' : '*'} ${next.python}` }
    }
    return total
  }

  const factor = (): Part | null => {
    if (take('-', '−', '–')) {
      const inner = factor()
      if (!inner) return null
      const value = { a: negate(inner.value.a), b: negate(inner.value.b) }
      return { value, python: `-${inner.python}` }
    }
    if (take('(')) {
      const inner = sum()
      return inner && take(')') ? { value: inner.value, python: `(${inner.python})` } : null
    }
    const token = left.shift()
    if (token?.type === 'number' && token.text.length <= LONGEST_NUMBER) {
      const python = isExact ? `${BigInt(token.text)}` : `F('${token.text}')`
      return { value: { a: ZERO, b: rational(token.text) }, python }
    }
    if (token?.type === 'letter') return { value: { a: ONE, b: ZERO }, python: token.text }
    return null
  }

  const whole = sum()
  return whole && left.length === 0 ? whole : null
}

type Part = { value: Linear; python: string }

function python(text: string, unknown: string, left: string, right: string): string {
  return [
    `# ${text}`,
    'from fractions import Fraction as F',
    '',
    `def difference(${unknown}):`,
    `    return (${left}) - (${right})`,
    '',
    'at_zero = difference(F(0))',
    'slope = difference(F(1)) - at_zero',
    `print('${unknown} =', -at_zero / slope if slope else 'no single value')`,
  ].join('\n')
}

const ZERO: Rational = { n: 0n, d: 1n }
const ONE: Rational = { n: 1n, d: 1n }

function rational(text: string): Rational {
  const [whole = '0', decimals = ''] = text.split('.')
  return reduce(BigInt(whole + decimals), 10n ** BigInt(decimals.length))
}

function reduce(n: bigint, d: bigint): Rational {
  let [x, y] = [n < 0n ? -n : n, d < 0n ? -d : d]
  while (y !== 0n) [x, y] = [y, x % y]
  const by = d < 0n ? -x : x
  return by === 0n ? ZERO : { n: n / by, d: d / by }
}

function add(p: Rational, q: Rational): Rational {
  return reduce(p.n * q.d + q.n * p.d, p.d * q.d)
}

function subtract(p: Rational, q: Rational): Rational {
  return add(p, negate(q))
}

function negate(p: Rational): Rational {
  return { n: -p.n, d: p.d }
}

function multiply(p: Rational, q: Rational): Rational {
  return reduce(p.n * q.n, p.d * q.d)
}

function divide(p: Rational, q: Rational): Rational {
  return reduce(p.n * q.d, p.d * q.n)
}

function times(p: Linear, q: Linear): Linear | null {
  if (p.a.n !== 0n && q.a.n !== 0n) return null
  return {
    a: add(multiply(p.a, q.b), multiply(q.a, p.b)),
    b: multiply(p.b, q.b),
  }
}

function quotient(p: Linear, q: Linear): Linear | null {
  if (q.a.n !== 0n || q.b.n === 0n) return null
  return { a: divide(p.a, q.b), b: divide(p.b, q.b) }
}

function format(value: Rational): string {
  return value.d === 1n ? `${value.n}` : `${value.n}/${value.d}`
}

function joined(tokens: Token[]): string {
  return tokens.map((token) => token.text).join('')
}
