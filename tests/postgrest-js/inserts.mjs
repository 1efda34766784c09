// insert and upsert, into the topic `notes` whose key is `n`. Without a schema, as a client has it that nobody told one.

export async function inserts({ library, url, check }) {
  const notes = () => new library.PostgrestClient(url).from('notes')
  const conflict = { status: 422, code: 'conflict', message: 'the key exists with other content; the first difference is in said' }
  const unchanging = (preference) => ({
    status: 400,
    code: 'PGRST122',
    message: `Prefer: ${preference}: a record never changes once it is stored, and what is answered is stored`,
  })
  const kept = (name, ...numbers) =>
    check(
      name,
      () => notes().select('n').order('n'),
      numbers.map((n) => ({ n })),
    )
  await check('insert', () => notes().insert({ n: 1, said: 'once' }), null)
  const names = ({ data, ...rest }) => ({ ...rest, data: data.map((row) => Object.keys(row).sort()) })
  await check('insert, select', () => notes().insert({ n: 2, said: 'b' }).select().then(names), [
    ['_extra', '_id', '_key', '_published_at', '_source', '_stored_at', 'n', 'said'],
  ])
  await check('insert, select of columns', () => notes().insert({ n: 3, said: 'c' }).select('said, number:n'), [{ said: 'c', number: 3 }])
  await check('insert, single', () => notes().insert({ n: 4 }).select('n').single(), { n: 4 })
  await check('insert, maybeSingle', () => notes().insert({ n: 5 }).select('n').maybeSingle(), { n: 5 })
  await check('insert, bulk', () => notes().insert([{ n: 7, said: 'g' }, { n: 6 }]).select('n,said'), [
    { n: 7, said: 'g' },
    { n: 6, said: null },
  ])
  await check('insert, defaultToNull: false', () => notes().insert([{ n: 8 }, { n: 9, said: 'i' }], { defaultToNull: false }).select('n,said'), [
    { n: 8, said: null },
    { n: 9, said: 'i' },
  ])
  await check('insert, count', () => notes().insert([{ n: 10 }, { n: 11 }], { count: 'exact' }).select('n'), { data: [{ n: 10 }, { n: 11 }], count: 2 })
  await check('insert, count and no select', () => notes().insert({ n: 11 }, { count: 'planned' }), { data: null, count: 1 })
  await check('insert, of none', () => notes().insert([]).select('n'), [])
  await check('insert, the same again', () => notes().insert({ n: 1, said: 'once' }).select('n,said'), [{ n: 1, said: 'once' }])
  await check('insert, other content under a key', () => notes().insert([{ n: 90 }, { n: 1, said: 'other' }]), conflict)
  await check('insert, what the schema refuses', () => notes().insert([{ n: 91 }, { n: 'nine' }]), {
    status: 422,
    code: 'schema',
    message: 'must be an integer, was string',
  })
  await check('insert, rollback', () => notes().insert({ n: 92 }).rollback(), unchanging('tx=rollback'))
  await check('upsert, ignoreDuplicates', () => notes().upsert([{ n: 1, said: 'once' }, { n: 12 }], { ignoreDuplicates: true }).select('n'), [{ n: 1 }, { n: 12 }])
  await check('upsert, ignoreDuplicates and other content', () => notes().upsert({ n: 1, said: 'other' }, { ignoreDuplicates: true }), conflict)
  await check('upsert, ignoreDuplicates and onConflict', () => notes().upsert({ n: 93 }, { ignoreDuplicates: true, onConflict: 'n' }), {
    status: 400,
    code: 'PGRST100',
    message: "on_conflict is not offered: a topic's own key says which records are the same; leave it out",
  })
  await check('upsert', () => notes().upsert({ n: 94 }), unchanging('resolution=merge-duplicates'))
  await check('upsert, every option', () => notes().upsert([{ n: 95 }], { onConflict: 'n', count: 'exact', defaultToNull: false }).select(), unchanging('resolution=merge-duplicates'))
  const readOnly = { status: 405, code: 'method_not_allowed' }
  await check('update', () => notes().update({ said: 'other' }).eq('n', 1), readOnly)
  await check('delete', () => notes().delete().eq('n', 1), readOnly)
  await kept('all that was taken, and nothing else', 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
}
