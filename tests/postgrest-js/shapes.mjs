// PostgrestQueryBuilder.select and PostgrestTransformBuilder: which columns, in which order, how many, in which form.

export async function shapes({ rest, book, check }) {
  const ids = (...all) => all.map((id) => ({ id }))
  await check('select, all columns', () => book().eq('id', 13), [
    { id: 13, title: 'Unsigned', writer_id: null, editor_id: null, year: null, price: 3.25 },
  ])
  await check('select, an alias, a cast, white space', () => book(' name : title , id::text ').eq('id', 10), [{ name: 'Rivers', id: '10' }])
  await check('select, count and groups', () => book('year,count(),price.sum()').eq('year', 2005), [{ year: 2005, count: 2, sum: 8.75 }])
  await check('select, every aggregate', () => book('id.min(),high:id.max(),price.avg(),price.sum()::text'), [
    { min: 10, high: 13, avg: 24.5 / 3, sum: '24.5' },
  ])
  await check('select, count exact', () => book('id', { count: 'exact' }).order('id').limit(1), { data: ids(10), count: 4 })
  await check('select, count planned', () => book('id', { count: 'planned' }).order('id').limit(1), { data: ids(10), count: 4 })
  await check('select, count estimated', () => book('id', { count: 'estimated' }).order('id').limit(1), { data: ids(10), count: 4 })
  await check('select, head', () => book('*', { head: true, count: 'exact' }).gt('id', 10), { data: null, count: 3 })
  await check('select, head without a count', () => book('*', { head: true }), null)

  await check('order', () => book('id').order('title', { ascending: false }), ids(13, 12, 11, 10))
  await check('order, nullsFirst', () => book('id').order('year', { nullsFirst: true }).order('id'), ids(13, 10, 11, 12))
  await check('order, nulls last', () => book('id').order('year', { ascending: false, nullsFirst: false }).order('id'), ids(11, 12, 10, 13))
  await check('limit', () => book('id').order('id').limit(2), ids(10, 11))
  await check('range', () => book('id').order('id').range(1, 2), ids(11, 12))
  await check('range, beyond the end', () => book('id').order('id').range(9, 10), [])

  await check('single', () => book('title').eq('id', 10).single(), { title: 'Rivers' })
  await check('single, of none', () => book('title').eq('id', 99).single(), {
    status: 406,
    code: 'PGRST116',
    message: 'one row was asked for as an object, but the filters match none',
  })
  await check('single, of many', () => book('title').single(), { status: 406, code: 'PGRST116' })
  await check('maybeSingle', () => book('title').eq('id', 10).maybeSingle(), { title: 'Rivers' })
  await check('maybeSingle, of none', () => book('title').eq('id', 99).maybeSingle(), null)
  await check('maybeSingle, of many', () => book('title').maybeSingle(), { status: 406, code: 'PGRST116' })
  await check('csv', () => book('id,title').lt('id', 12).order('id').csv(), 'id,title\r\n10,Rivers\r\n11,Sand\r\n')
  await check('stripNulls', () => book('id,year').gte('id', 12).order('id').stripNulls(), [{ id: 12, year: 2005 }, { id: 13 }])
  await check('stripNulls, single', () => book('id,year').eq('id', 13).single().stripNulls(), { id: 13 })
  await check('returns', () => book('id').eq('id', 10).returns(), ids(10))
  await check('returns, after single', () => book('id').eq('id', 10).single().returns(), { id: 10 })
  await check('overrideTypes', () => book('id').eq('id', 10).overrideTypes(), ids(10))
  await check('schema', () => rest.schema(rest.schemaName).from('book').select('id').eq('id', 10), ids(10))

  await check('select, an unknown column', () => book('titel'), {
    status: 400,
    code: '42703',
    message: 'book has no column "titel"; did you mean "title"?',
  })
  await check('eq, of text where a number belongs', () => book().eq('id', 'ten'), { status: 400, code: '22P02' })
  await check('from, an unknown table', () => rest.from('buk').select(), {
    status: 404,
    code: 'PGRST205',
    message: 'table "buk" does not exist; did you mean "book"?',
  })
  await check('schema, an unknown one', () => rest.schema('attic').from('book').select(), {
    status: 406,
    code: 'PGRST106',
    message: `schema "attic" is not served; there are ${rest.schemaName}`,
  })
}
