package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"github.com/mattn/go-sqlite3"
)

// conn is one SQLite connection with its prepared statements. The driver is
// used without database/sql: a transaction must stay on its connection, and
// after an error the store has to see whether SQLite ended it by itself.
type conn struct {
	c     *sqlite3.SQLiteConn
	stmts map[string]*sqlite3.SQLiteStmt
	args  []driver.NamedValue
}

// exclusive is the VFS of connections to a file: SQLite's own for Unix, with
// the file locked against other processes, which the store's lock does anyway.
// So the index of the log lies in memory. Otherwise it is a file that also a
// reader writes to, and an idle machine would wear out its card.
const exclusive = "?vfs=unix-excl"

// unlocked spares a connection its own mutex, which is taken with each call. A
// conn is for one goroutine at a time.
const unlocked = "&_mutex=no"

// dataSource is what the driver opens for path.
func dataSource(path string) string {
	switch {
	case isMemory(path):
		return path + unlocked
	case path == ":memory:":
		return path
	}
	return path + exclusive + unlocked
}

// openConn opens path and runs setup, which may hold several statements.
func openConn(path, setup string, hook func(*sqlite3.SQLiteConn) error) (*conn, error) {
	d := &sqlite3.SQLiteDriver{ConnectHook: hook}
	raw, err := d.Open(dataSource(path))
	if err != nil {
		return nil, err
	}
	c := &conn{c: raw.(*sqlite3.SQLiteConn), stmts: map[string]*sqlite3.SQLiteStmt{}}
	if err := c.script(setup); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *conn) close() error {
	for _, s := range c.stmts {
		_ = s.Close() // what a failed statement reports was returned when it ran
	}
	return c.c.Close()
}

// script runs statements that are not worth keeping prepared.
func (c *conn) script(sql string) error {
	_, err := c.c.ExecContext(context.Background(), sql, nil)
	return err
}

func (c *conn) prepare(sql string) (*sqlite3.SQLiteStmt, error) {
	if s, ok := c.stmts[sql]; ok {
		return s, nil
	}
	s, err := c.c.PrepareContext(context.Background(), sql)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", sql, err)
	}
	c.stmts[sql] = s.(*sqlite3.SQLiteStmt)
	return c.stmts[sql], nil
}

func (c *conn) bind(args []any) []driver.NamedValue {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args
}

// exec runs one statement. Statements are never interrupted halfway: they are
// short, and a write that was begun is finished.
func (c *conn) exec(sql string, args ...any) error {
	s, err := c.prepare(sql)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(context.Background(), c.bind(args))
	return err
}

// query calls each for every row. The slice is used again for the next row.
// It must not run the same statement from within each.
func (c *conn) query(sql string, args []any, each func(row []driver.Value) error) (err error) {
	s, err := c.prepare(sql)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(context.Background(), c.bind(args))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// inTransaction asks SQLite itself, since an error may have ended one.
func (c *conn) inTransaction() bool { return !c.c.AutoCommit() }

// within runs f between begin and commit, or rolls back.
func (c *conn) within(begin string, f func() error) error {
	if err := c.exec(begin); err != nil {
		return err
	}
	err := f()
	if err == nil {
		if err = c.exec("COMMIT"); err == nil {
			return nil
		}
	}
	if c.inTransaction() {
		err = errors.Join(err, c.exec("ROLLBACK"))
	}
	return err
}
