// lib/pq beside other drivers (see mixed.py, whose player in Go this is). A
// query with parameters is an unnamed statement, prepared before one Sync and
// run after the next; a prepared statement is named 1, 2, ... on every
// connection.
//
//	GO111MODULE=off GOPATH=/usr/share/gocode go build LibPqMixed.go
package main

import (
	"bufio"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"

	_ "github.com/lib/pq"
)

const settings = "select current_setting('application_name')," +
	" current_setting('TimeZone'), current_setting('search_path')"

var driver = os.Getenv("DRIVER")
var words = bufio.NewReader(os.Stdin)
var zones = []string{"Asia/Tokyo", "America/Lima", "Africa/Cairo",
	"Australia/Perth", "Europe/Oslo", "Pacific/Fiji", "Asia/Kolkata"}

// One connection, its identity, and what is to be true of its session.
type member struct {
	db         *sql.DB
	insert     *sql.Stmt
	number     int
	name       string
	searchPath string
	zone       string
	backends   map[string]bool
}

func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	must(err)
	return value
}

func must(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(why ...any) {
	fmt.Println(append([]any{driver + ":"}, why...)...)
	os.Exit(1)
}

func same(got any, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		fail("got", got, "wanted", wanted)
	}
}

func awaitWord(word string) {
	line, err := words.ReadString('\n')
	must(err)
	same(strings.TrimSpace(line), word)
}

func newMember(number int) *member {
	me := &member{number: number, name: fmt.Sprint(driver, "/", number),
		searchPath: fmt.Sprintf("mixed_%s, c%d", driver, number),
		zone:       zones[number%len(zones)], backends: map[string]bool{}}
	where, err := url.Parse(os.Getenv("DATABASE_URL"))
	must(err)
	options := where.Query()
	options.Set("sslmode", "disable")
	options.Set("application_name", me.name)
	options.Set("search_path", me.searchPath)
	options.Set("TimeZone", me.zone)
	where.RawQuery = options.Encode()
	me.db, err = sql.Open("postgres", where.String())
	must(err)
	me.db.SetMaxOpenConns(1)
	me.insert, err = me.db.Prepare(
		"insert into ledger (client, round, note) values ($1, $2, $3)")
	must(err)
	return me
}

// The one row that a query has, as text.
func ask(tx *sql.Tx, query string, values ...any) []string {
	rows, err := tx.Query(query, values...)
	must(err)
	found := read(rows)
	if len(found) != 1 {
		fail(len(found), "rows for", query, values)
	}
	return found[0]
}

func read(rows *sql.Rows) (found [][]string) {
	columns, err := rows.Columns()
	must(err)
	for rows.Next() {
		row := make([]string, len(columns))
		into := make([]any, len(columns))
		for at := range row {
			into[at] = &row[at]
		}
		must(rows.Scan(into...))
		found = append(found, row)
	}
	must(rows.Err())
	return found
}

func (me *member) transaction(turn int) {
	note := fmt.Sprint(me.name, "/", turn)
	kind := turn % 4
	zone := me.zone
	tx, err := me.db.Begin()
	must(err)
	if kind != 3 {
		zone = zones[(me.number+turn+1)%len(zones)]
		local := ""
		if kind == 2 {
			local = "local "
		}
		_, err = tx.Exec("set " + local + "time zone '" + zone + "'")
		must(err)
	}
	echo := ask(tx, "select $1::text || ' for "+me.name+
		"', pg_backend_pid()", note)
	same(echo[0], note+" for "+me.name)
	me.backends[echo[1]] = true
	_, err = tx.Stmt(me.insert).Exec(me.number, turn, note)
	must(err)
	same(ask(tx, "select note from ledger where client = $1 and round = $2",
		me.number, turn), []string{note})
	same(ask(tx, settings), []string{me.name, zone, me.searchPath})
	if turn%2 == 1 {
		must(tx.Rollback())
	} else {
		must(tx.Commit())
	}
	if kind == 0 {
		me.zone = zone
	}
}

// All transactions; and in the end its rows are all there.
func (me *member) everything() {
	var wanted [][]string
	for turn := 0; turn < number("TRANSACTIONS"); turn++ {
		me.transaction(turn)
		if turn%2 == 0 {
			wanted = append(wanted, []string{strconv.Itoa(turn)})
		}
	}
	rows, err := me.db.Query("select round from ledger where client = $1"+
		" order by round", me.number)
	must(err)
	same(read(rows), wanted)
}

func atOnce(members []*member, what func(number int)) {
	var all sync.WaitGroup
	for number := range members {
		all.Add(1)
		go func(number int) {
			defer all.Done()
			what(number)
		}(number)
	}
	all.Wait()
}

func main() {
	members := make([]*member, number("CLIENTS"))
	atOnce(members, func(number int) { members[number] = newMember(number) })
	fmt.Println("ready")
	awaitWord("go")
	atOnce(members, func(number int) { members[number].everything() })
	met := map[string]bool{}
	for _, me := range members {
		for backend := range me.backends {
			met[backend] = true
		}
	}
	fmt.Print("done")
	for backend := range met {
		fmt.Print(" ", backend)
	}
	fmt.Println()
	awaitWord("end")
	for _, me := range members {
		must(me.db.Close())
	}
}
