// Writes numbered rows with pgx: see ../README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

const insert = "INSERT INTO written VALUES ($1, $2)"

var (
	nothing = context.Background()
	ended   atomic.Bool
	printer sync.Mutex
)

type event map[string]any

func say(name string, what event) {
	what["client"] = name
	line, _ := json.Marshal(what)
	printer.Lock()
	defer printer.Unlock()
	fmt.Println(string(line))
}

func prepared(conn *pgx.Conn, name string, numbers []int64) error {
	_, err := conn.Exec(nothing, insert, name, numbers[0])
	return err
}

func simple(conn *pgx.Conn, name string, numbers []int64) error {
	_, err := conn.Exec(nothing, insert, pgx.QuerySimpleProtocol(true), name, numbers[0])
	return err
}

func transaction(conn *pgx.Conn, name string, numbers []int64) error {
	return conn.BeginFunc(nothing, func(tx pgx.Tx) error {
		for _, number := range numbers {
			if _, err := tx.Exec(nothing, insert, name, number); err != nil {
				return err
			}
		}
		return nil
	})
}

func batch(conn *pgx.Conn, name string, numbers []int64) error {
	all := &pgx.Batch{}
	for _, number := range numbers {
		all.Queue(insert, name, number)
	}
	return conn.SendBatch(nothing, all).Close()
}

func copyFrom(conn *pgx.Conn, name string, numbers []int64) error {
	row := func(i int) ([]any, error) { return []any{name, numbers[i]}, nil }
	_, err := conn.CopyFrom(nothing, pgx.Identifier{"written"},
		[]string{"client", "number"}, pgx.CopyFromSlice(len(numbers), row))
	return err
}

func reads(conn *pgx.Conn, name string, numbers []int64) error {
	var answer int64
	err := conn.QueryRow(nothing, "SELECT $1::bigint", numbers[0]).Scan(&answer)
	if err == nil && answer != numbers[0] {
		return errors.New("another answer than expected")
	}
	return err
}

type way struct {
	name  string
	count int64 // how many rows it writes as one
	write func(*pgx.Conn, string, []int64) error
}

func work(name string, way way) error {
	conn, err := pgx.Connect(nothing, os.Args[1])
	if err != nil {
		return err
	}
	for _, set := range []string{
		"SET written.mark = '" + name + "'",
		"PREPARE doubled AS SELECT $1::int * 2",
	} {
		if _, err := conn.Exec(nothing, set); err != nil {
			return err
		}
	}
	for first := int64(0); !ended.Load(); first += way.count {
		numbers := []int64{}
		for number := first; number < first+way.count; number++ {
			numbers = append(numbers, number)
		}
		var refused *pgconn.PgError
		switch err := way.write(conn, name, numbers); {
		case err == nil:
			say(name, event{"acknowledged": numbers})
		case conn.IsClosed() || !errors.As(err, &refused):
			say(name, event{"lost": numbers, "text": err.Error()})
			return nil
		default:
			say(name, event{"failed": numbers, "sqlstate": refused.Code, "text": err.Error()})
		}
		time.Sleep(10 * time.Millisecond)
	}
	var mark string
	var doubled int
	if err := conn.QueryRow(nothing, "SHOW written.mark").Scan(&mark); err != nil {
		return err
	}
	if err := conn.QueryRow(nothing, "EXECUTE doubled(21)").Scan(&doubled); err != nil {
		return err
	}
	say(name, event{"ended": event{"mark": mark, "doubled": doubled}})
	return conn.Close(nothing)
}

func main() {
	ways := []way{
		{"simple", 1, simple}, {"prepared", 1, prepared}, {"transaction", 2, transaction},
		{"batch", 5, batch}, {"copy", 3, copyFrom}, {"reads", 1, reads},
	}
	var all sync.WaitGroup
	for _, one := range ways {
		all.Add(1)
		go func(one way) {
			defer all.Done()
			name := "pgx " + one.name
			if err := work(name, one); err != nil {
				say(name, event{"lost": []int64{}, "text": err.Error()})
			}
		}(one)
	}
	io.Copy(io.Discard, os.Stdin)
	ended.Store(true)
	all.Wait()
}
