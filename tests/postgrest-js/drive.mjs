// Every method of @supabase/postgrest-js, and every option of those that read or insert, against Caudal over tests/contract/library.sql.
// One line of JSON a check, {"name","got","want"}; the name is that of the method. The last line names the methods that nothing called.
//
// usage: node drive.mjs PACKAGES URL STORE     STORE is postgres or sqlite, URL ends in /rest/v1
import { createRequire } from 'node:module'
import { filters, onPostgresOnly } from './filters.mjs'
import { client } from './client.mjs'
import { inserts } from './inserts.mjs'
import { notOffered } from './not_offered.mjs'
import { relations } from './relations.mjs'
import { shapes } from './shapes.mjs'

const [packages, url, store] = process.argv.slice(2)
const library = createRequire(`${packages}/package.json`)('@supabase/postgrest-js')
const called = new Set()
const methods = watched(library)
const schema = store === 'sqlite' ? 'main' : 'library'
const run = { library, url, store, schema, check, book: undefined, rest: new library.PostgrestClient(url, { schema }) }
run.book = (columns, options) => run.rest.from('book').select(columns, options)

await filters(run)
await onPostgresOnly(run)
await shapes(run)
await relations(run)
await client(run)
await notOffered(run)
await inserts(run)
say({ name: 'methods that nothing called', got: methods.filter((name) => !called.has(name)), want: [] })

// Whatever way a query ends, in a form that can be compared: its rows, with the count where one was asked for, or its error.
async function check(name, query, want) {
  let got
  try {
    const { data, error, count, status } = await query()
    got = error ? { status, code: error.code, message: error.message } : count === null ? data : { data, count }
    // An error's words are compared where the check gives them.
    if (error && want?.message === undefined) delete got.message
  } catch (thrown) {
    got = { thrown: thrown.name, code: thrown.code }
  }
  say({ name, got, want })
}

function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

// The names of all public methods, each of which now notes that it was called. One that a derived type has anew cannot be called.
function watched(library) {
  const names = []
  const types = Object.values(library).filter((type) => typeof type === 'function')
  for (const type of types) {
    const derived = types.filter((other) => other.prototype instanceof type)
    for (const name of Object.getOwnPropertyNames(type.prototype)) {
      const method = type.prototype[name]
      if (['constructor', 'then', 'processResponse', 'cloneRequestState', 'toJSON'].includes(name) || typeof method !== 'function') continue
      if (derived.some((other) => Object.hasOwn(other.prototype, name))) continue
      const full = `${type.name}.${name}`
      names.push(full)
      type.prototype[name] = function (...given) {
        called.add(full)
        return method.apply(this, given)
      }
    }
  }
  return names
}
