// Rows with what their foreign keys lead to, and the option `referencedTable` of the methods that have it.

export async function relations({ rest, book, check }) {
  const writer = (columns) => rest.from('writer').select(columns)
  const written = writer.bind(null, 'name,book!writer_id(title)')
  await check('select, to one', () => book('title,writer!writer_id(name)').eq('id', 12), [{ title: 'Tides', writer: { name: 'Ben' } }])
  await check('select, to many', () => written().eq('id', 1).order('title', { referencedTable: 'book' }), [
    { name: 'Ana', book: [{ title: 'Rivers' }, { title: 'Sand' }] },
  ])
  await check('select, one to one and many to many', () => book('title,cover(colour),tag(word)').eq('id', 12), [
    { title: 'Tides', cover: { colour: 'grey' }, tag: [{ word: 'water' }] },
  ])
  await check('select, inner', () => writer('name,book!writer_id!inner(title)').eq('book.year', 1999), [{ name: 'Ana', book: [{ title: 'Rivers' }] }])
  await check('select, spread', () => book('title,...writer!writer_id(author:name)').eq('id', 12), [{ title: 'Tides', author: 'Ben' }])
  await check('select, nested', () => rest.from('tag').select('word,book(title,writer!writer_id(name))').eq('id', 1).order('title', { referencedTable: 'book' }), [
    { word: 'water', book: [{ title: 'Rivers', writer: { name: 'Ana' } }, { title: 'Tides', writer: { name: 'Ben' } }] },
  ])
  await check('select, an aggregate of a relation', () => writer('name,book!writer_id(count())').eq('id', 1), [{ name: 'Ana', book: [{ count: 2 }] }])
  await check('eq, on a relation', () => written().eq('id', 1).eq('book.title', 'Sand'), [{ name: 'Ana', book: [{ title: 'Sand' }] }])
  await check('not, a relation that is not there', () => writer('name,book!writer_id()').not('book', 'is', null).order('id'), [
    { name: 'Ana' },
    { name: 'Ben' },
  ])
  await check(
    'order, by a relation',
    () => book('id,writer!writer_id()').not('writer_id', 'is', null).order('writer(name)', { ascending: false }).order('id'),
    [{ id: 12 }, { id: 10 }, { id: 11 }],
  )
  await check(
    'order and limit, referencedTable',
    () => written().order('id').order('title', { referencedTable: 'book', ascending: false }).limit(1, { referencedTable: 'book' }),
    [
      { name: 'Ana', book: [{ title: 'Sand' }] },
      { name: 'Ben', book: [{ title: 'Tides' }] },
      { name: 'Cid', book: [] },
    ],
  )
  await check('order, foreignTable', () => written().eq('id', 1).order('title', { foreignTable: 'book', ascending: false }), [
    { name: 'Ana', book: [{ title: 'Sand' }, { title: 'Rivers' }] },
  ])
  await check('range, referencedTable', () => written().eq('id', 1).order('title', { referencedTable: 'book' }).range(1, 1, { referencedTable: 'book' }), [
    { name: 'Ana', book: [{ title: 'Sand' }] },
  ])
  await check('or, referencedTable', () => written().or('year.eq.1999,price.gt.100', { referencedTable: 'book' }).eq('id', 1), [
    { name: 'Ana', book: [{ title: 'Rivers' }] },
  ])
  await check('select, an ambiguous relation', () => book('writer(name)'), { status: 300, code: 'PGRST201' })
  await check('select, an unknown relation', () => book('publisher(name)'), { status: 400, code: 'PGRST200' })
}
