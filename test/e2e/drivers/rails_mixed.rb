#!/usr/bin/ruby
# Rails' ActiveRecord beside other drivers (see mixed.py, whose player in Ruby
# this is): SETs of its own at connect; statements prepared before one Sync,
# a1, a2, ... on every connection, and run after the next.

require 'active_record'

URL = ENV.fetch('DATABASE_URL')
DRIVER = ENV.fetch('DRIVER')
CLIENTS = Integer(ENV.fetch('CLIENTS'))
TRANSACTIONS = Integer(ENV.fetch('TRANSACTIONS'))
ZONES = %w[Asia/Tokyo America/Lima Africa/Cairo Australia/Perth Europe/Oslo
           Pacific/Fiji Asia/Kolkata].freeze
SETTINGS = "select current_setting('application_name'), " \
           "current_setting('TimeZone'), current_setting('search_path')".freeze

$stdout.sync = true
ActiveRecord::Base.establish_connection(
  url: URL, pool: CLIENTS, schema_search_path: "mixed_#{DRIVER}"
)

class Ledger < ActiveRecord::Base
  self.table_name = 'ledger'
end

def fail_with(why)
  puts why
  exit!(1)
end

def same(got, wanted)
  raise "got #{got.inspect}, wanted #{wanted.inspect}" unless got == wanted
end

def await_word(word)
  told = $stdin.gets&.strip
  fail_with "told #{told.inspect}, not #{word}" unless told == word
end

# One connection, its identity, and what is to be true of its session.
class Member
  attr_reader :backends

  def initialize(number)
    @number = number
    @name = "#{DRIVER}/#{number}"
    @search_path = "mixed_#{DRIVER}, c#{number}"
    @zone = ZONES[number % ZONES.size]
    @backends = []
  end

  def connect
    @conn = ActiveRecord::Base.connection       # of this thread
    @conn.schema_search_path = @search_path
    @conn.execute("set application_name to '#{@name}'")
    @conn.execute("set time zone '#{@zone}'")
    Ledger.count
  end

  # All transactions; and in the end its rows are all there.
  def everything
    TRANSACTIONS.times { |turn| transaction(turn) }
    same(Ledger.where(client: @number).order(:round).pluck(:round),
         (0...TRANSACTIONS).select(&:even?))
  end

  def transaction(turn)
    zone = @zone
    ActiveRecord::Base.transaction do
      zone = change_zone(turn)
      one_round(turn, "#{@name}/#{turn}")
      same(ask(SETTINGS), [@name, zone, @search_path])
      raise ActiveRecord::Rollback if turn.odd?
    end
    @zone = zone if (turn % 4).zero?
  end

  def change_zone(turn)
    return @zone if turn % 4 == 3

    zone = ZONES[(@number + turn + 1) % ZONES.size]
    local = 'local ' if turn % 4 == 2
    @conn.execute("set #{local}time zone '#{zone}'")
    zone
  end

  def one_round(turn, note)
    echo, backend = ask("select $1::text || ' for #{@name}', pg_backend_pid()",
                        note)
    same(echo, "#{note} for #{@name}")
    @backends << backend
    Ledger.create!(client: @number, round: turn, note: note)
    same(Ledger.where(client: @number, round: turn).pluck(:note), [note])
  end

  # The one row that a query has.
  def ask(sql, *values)
    binds = values.map do |value|
      ActiveRecord::Relation::QueryAttribute.new(
        'it', value, ActiveRecord::Type::String.new
      )
    end
    @conn.exec_query(sql, 'SQL', binds, prepare: true).rows.first
  end
end

# As many threads as members go through these in step with the main one.
words = { ready: Queue.new, go: Queue.new, done: Queue.new, end: Queue.new }
members = Array.new(CLIENTS) { |number| Member.new(number) }
threads = members.map do |me|
  Thread.new do
    me.connect
    words[:ready] << me
    words[:go].pop
    me.everything
    words[:done] << me
    words[:end].pop
  rescue Exception => e # rubocop:disable Lint/RescueException
    fail_with e.full_message(highlight: false)
  end
end

members.each { words[:ready].pop }
puts 'ready'
await_word 'go'
members.each { |me| words[:go] << me }
members.each { words[:done].pop }
puts "done #{members.flat_map(&:backends).uniq.join(' ')}"
await_word 'end'
members.each { |me| words[:end] << me }
threads.each(&:join)
ActiveRecord::Base.connection_pool.disconnect!
