package hostos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/fsnotify/fsnotify"
)

// watch sends on wake after changes of the directory and of the orders in it,
// until ctx ends. Wakes are merged. The directories are made if need be.
func (f files) watch(ctx context.Context, wake chan<- struct{}) error {
	if err := os.MkdirAll(f.orders(), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the folder of orders: %w", err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", f.dir, err)
	}
	defer w.Close() //nolint:errcheck // nothing is lost
	if err := errors.Join(w.Add(f.dir), w.Add(f.orders())); err != nil {
		return fmt.Errorf("watch %s: %w", f.dir, err)
	}
	for {
		select { // also once at the beginning: what happened before is not missed
		case wake <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Events:
		case err := <-w.Errors:
			return fmt.Errorf("watch %s: %w", f.dir, err)
		}
	}
}
