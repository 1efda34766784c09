// What docs/postgrest.md says is not offered, and the words with which it is refused.

export async function notOffered({ rest, book, check }) {
  const noSuchForm = {
    status: 406,
    code: 'PGRST107',
    message:
      'there are application/vnd.apache.arrow.stream, application/vnd.apache.parquet, application/json, application/x-ndjson, text/csv ' +
      'and application/vnd.pgrst.object+json',
  }
  const everything = { analyze: true, verbose: true, settings: true, buffers: true, wal: true, format: 'json' }
  await check('explain', () => book().explain(), noSuchForm)
  await check('explain, every option', () => book().explain(everything), noSuchForm)
  await check('geojson', () => book().geojson(), noSuchForm)

  const functions = { status: 404, code: 'not_found', message: 'functions are not offered; /v1/sql takes SQL that calls them' }
  await check('rpc', () => rest.rpc('length', { word: 'ten' }), functions)
  await check('rpc, get', () => rest.rpc('length', { word: 'ten' }, { get: true }), functions)
  await check('rpc, count', () => rest.rpc('length', {}, { count: 'exact' }), functions)
  // The client takes any 404 without a body for an empty answer.
  await check('rpc, head', () => rest.rpc('length', { word: 'ten' }, { head: true }), null)

  // Nothing is affected by a read, and nothing of it needs to be taken back.
  await check('maxAffected, of a read', () => book('id').eq('id', 10).maxAffected(1), [{ id: 10 }])
  await check('rollback, of a read', () => book('id').eq('id', 10).rollback(), [{ id: 10 }])

  const readOnly = {
    status: 405,
    code: 'method_not_allowed',
    message: 'table tag was not made by Caudal and is served read-only: publish to a topic instead, or write to the database',
  }
  const tag = () => rest.from('tag')
  await check('insert, where Caudal only reads', () => tag().insert({ id: 9, word: 'new' }), readOnly)
  await check('upsert, where Caudal only reads', () => tag().upsert({ id: 1, word: 'new' }), readOnly)
  await check('update, where Caudal only reads', () => tag().update({ word: 'new' }).eq('id', 1), readOnly)
  await check('update, count', () => tag().update({ word: 'new' }, { count: 'exact' }).eq('id', 1).maxAffected(1).select(), readOnly)
  await check('delete, where Caudal only reads', () => tag().delete().eq('id', 1), readOnly)
  await check('delete, count', () => tag().delete({ count: 'exact' }).eq('id', 1).select(), readOnly)
  await check('nothing of it happened', () => tag().select().order('id'), [
    { id: 1, word: 'water' },
    { id: 2, word: 'dry' },
    { id: 3, word: 'unused' },
  ])
}
