// PostgrestFilterBuilder: what chooses rows.

export async function filters({ book, check }) {
  // The first letters of the titles that are left, of Rivers, Sand, Tides and Unsigned.
  const titles = (name, ask, letters) =>
    check(
      name,
      () => ask(book('title')).order('title'),
      [...letters].map((letter) => ({ title: { R: 'Rivers', S: 'Sand', T: 'Tides', U: 'Unsigned' }[letter] })),
    )
  await titles('eq', (q) => q.eq('id', 10), 'R')
  await titles('neq', (q) => q.neq('id', 10), 'STU')
  await titles('gt', (q) => q.gt('id', 11), 'TU')
  await titles('gte', (q) => q.gte('id', 12), 'TU')
  await titles('lt', (q) => q.lt('id', 11), 'R')
  await titles('lte', (q) => q.lte('id', 11), 'RS')
  await titles('like', (q) => q.like('title', '%i%'), 'RTU')
  await titles('likeAllOf', (q) => q.likeAllOf('title', ['%i%', '%s']), 'RT')
  await titles('likeAnyOf', (q) => q.likeAnyOf('title', ['R%', '%d']), 'RSU')
  await titles('ilike', (q) => q.ilike('title', '%I%S'), 'RT')
  await titles('ilikeAllOf', (q) => q.ilikeAllOf('title', ['%I%', '%S']), 'RT')
  await titles('ilikeAnyOf', (q) => q.ilikeAnyOf('title', ['r%', '%D']), 'RSU')
  await titles('regexMatch', (q) => q.regexMatch('title', '^[RS]'), 'RS')
  await titles('regexIMatch', (q) => q.regexIMatch('title', '^[rs]'), 'RS')
  await titles('is null', (q) => q.is('year', null), 'U')
  await titles('isDistinct', (q) => q.isDistinct('year', 2005), 'RU')
  await titles('in', (q) => q.in('title', ['Sand', 'Tides', 'x,y', 'a"b']), 'ST')
  await titles('in, of numbers', (q) => q.in('id', [10, 13]), 'RU')
  await titles('notIn', (q) => q.notIn('title', ['Sand', 'Tides']), 'RU')
  await titles('match', (q) => q.match({ year: 2005, writer_id: 1 }), 'S')
  await titles('not', (q) => q.not('year', 'is', null), 'RST')
  await titles('not in', (q) => q.not('id', 'in', '(10,11)'), 'TU')
  await titles('or', (q) => q.or('year.lt.2000,and(year.eq.2005,price.not.is.null)'), 'RS')
  await titles('filter', (q) => q.filter('title', 'in', '("Sand","Tides")'), 'ST')
  await titles('filter not', (q) => q.filter('title', 'not.like', 'S%'), 'RTU')
  await titles('filters together', (q) => q.gte('id', 11).lt('id', 13).neq('title', 'Sand'), 'T')
}

// Arrays, ranges, JSON and text search. SQLite names what it cannot do.
export async function onPostgresOnly({ rest, book, store, check }) {
  if (store === 'sqlite') {
    const refuses = (column, what) => ({ status: 400, code: '22P02', message: `${column}: SQLite has no ${what}; PostgreSQL can do this` })
    let refused = refuses('title', 'full text search')
    await check('textSearch', () => book().textSearch('title', 'rivers'), refused)
    await check('textSearch plain', () => book().textSearch('title', 'rivers', { type: 'plain' }), refused)
    await check('textSearch phrase', () => book().textSearch('title', 'rivers', { type: 'phrase' }), refused)
    await check('textSearch websearch', () => book().textSearch('title', 'rivers', { type: 'websearch' }), refused)
    refused = refuses('title', 'containment, overlap and ranges')
    await check('contains', () => book().contains('title', ['a']), refused)
    await check('containedBy', () => book().containedBy('title', ['a']), refused)
    await check('overlaps', () => book().overlaps('title', ['a']), refused)
    refused = refuses('year', 'containment, overlap and ranges')
    for (const method of ['rangeGt', 'rangeGte', 'rangeLt', 'rangeLte', 'rangeAdjacent']) {
      await check(method, () => book()[method]('year', '[1,5)'), refused)
    }
    return
  }
  const shelf = (name, ask, id) => check(name, () => ask(rest.from('shelf').select('id')), [{ id }])
  await shelf('contains an array', (q) => q.contains('words', ['a']), 1)
  await shelf('contains JSON', (q) => q.contains('facts', { tags: ['x'] }), 1)
  await shelf('contains a range', (q) => q.contains('span', '[6,7)'), 2)
  await shelf('containedBy an array', (q) => q.containedBy('words', ['b', 'c', 'd']), 2)
  await shelf('containedBy JSON', (q) => q.containedBy('facts', { size: { w: 7 }, tags: [], more: 1 }), 2)
  await shelf('containedBy a range', (q) => q.containedBy('span', '[0,6)'), 1)
  await shelf('overlaps an array', (q) => q.overlaps('words', ['c']), 2)
  await shelf('overlaps a range', (q) => q.overlaps('span', '[0,2)'), 1)
  await shelf('rangeGt', (q) => q.rangeGt('span', '[0,4)'), 2)
  await shelf('rangeGte', (q) => q.rangeGte('span', '[5,6)'), 2)
  await shelf('rangeLt', (q) => q.rangeLt('span', '[5,10)'), 1)
  await shelf('rangeLte', (q) => q.rangeLte('span', '[1,5)'), 1)
  await shelf('rangeAdjacent', (q) => q.rangeAdjacent('span', '[9,12)'), 2)
  await shelf('textSearch', (q) => q.textSearch('prose', 'cat & mat'), 1)
  await shelf('textSearch with a configuration', (q) => q.textSearch('prose', 'chase & river', { config: 'english' }), 2)
  await shelf('textSearch plain', (q) => q.textSearch('prose', 'fat mat', { type: 'plain', config: 'english' }), 1)
  await shelf('textSearch phrase', (q) => q.textSearch('prose', 'fat cat', { type: 'phrase', config: 'english' }), 1)
  await shelf('textSearch websearch', (q) => q.textSearch('prose', 'rivers -cat', { type: 'websearch', config: 'english' }), 2)
  await check('select of a JSON path', () => rest.from('shelf').select('w:facts->size->w').eq('facts->size->>w', '7'), [{ w: 7 }])
  await check('select of arrays and ranges', () => rest.from('shelf').select('words,span').eq('id', 1), [{ words: ['a', 'b'], span: '[1,5)' }])
}
