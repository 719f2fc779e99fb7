// Command storenode is one replicated store with its replication on loopback,
// and nothing else of the agent: for experiments, benchmarks and tests. It
// speaks HTTP with its users and the agent's own protocol with other storenodes
// on one port. README.md beside this file describes it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "storenode:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "bench" {
		return runBench(ctx, args[1:])
	}
	var o nodeOptions
	flags := flag.NewFlagSet("storenode", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "folder of the database; empty: in memory")
	flags.StringVar(&o.listen, "listen", "127.0.0.1:0", "address on loopback, for HTTP and for other storenodes")
	flags.StringVar(&o.schemaFile, "schema", "", "file of plain CREATE TABLE statements")
	flags.StringVar(&o.site, "site", "", "site id of a new database, 32 hexadecimal digits")
	flags.StringVar(&o.cluster, "cluster", "storenode", "storenodes of another cluster are refused")
	verbose := flags.Bool("v", false, "log what happens")
	if err := flags.Parse(args); err != nil {
		return err
	}
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	o.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	n, err := openNode(ctx, o)
	if err != nil {
		return err
	}
	fmt.Println("listening on", n.address)
	return n.run(ctx)
}
