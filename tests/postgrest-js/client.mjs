// PostgrestClient's own options, and what of PostgrestBuilder is about the request and not about its rows.

export async function client({ library, url, schema, book, check }) {
  const ten = [{ id: 10 }]
  const other = (options) => new library.PostgrestClient(url, { schema, ...options }).from('book').select('id').eq('id', 10)

  await check('throwOnError, no error', () => book('id').eq('id', 10).throwOnError(), ten)
  await check('throwOnError', () => book('titel').throwOnError(), { thrown: 'PostgrestError', code: '42703' })
  await check('throwOnError, after single', () => book('id').single().throwOnError(), { thrown: 'PostgrestError', code: 'PGRST116' })
  await check('setHeader', () => book('id').eq('id', 10).setHeader('Accept', 'text/csv'), 'id\r\n10\r\n')
  await check('headers', () => other({ headers: { Accept: 'text/csv' } }), 'id\r\n10\r\n')
  await check('timeout, far away', () => other({ timeout: 600_000 }), ten)
  await check('urlLengthLimit', () => other({ urlLengthLimit: 10 }), ten)

  const aborted = new AbortController()
  aborted.abort()
  await check('abortSignal, aborted', () => book('id').abortSignal(aborted.signal), {
    status: 0,
    code: '',
    message: 'AbortError: This operation was aborted',
  })
  await check('abortSignal, not aborted', () => book('id').eq('id', 10).abortSignal(new AbortController().signal), ten)

  // The first attempt does not reach Caudal; the client repeats a read by itself, with a header that says so.
  const flaky = () => {
    let attempts = 0
    return (...request) => (attempts++ === 0 ? Promise.reject(new TypeError('no route')) : fetch(...request))
  }
  await check('fetch and retry', () => other({ fetch: flaky() }), ten)
  await check('retry(false)', () => other({ fetch: flaky() }).retry(false), { status: 0, code: '', message: 'TypeError: no route' })
  await check('retry: false', () => other({ fetch: flaky(), retry: false }), { status: 0, code: '', message: 'TypeError: no route' })
}
