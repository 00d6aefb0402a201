package mirror

import (
	"context"
	"io"
)

// files is what a mirror needs of a place: small names, whole files. Directory
// and bucket are the two places. Safe for concurrent use.
type files interface {
	// put makes the content of the file at path, which is complete and closed,
	// visible under name, all at once and in place of what was there. The file
	// at path may be gone afterwards.
	put(ctx context.Context, name, path string) error
	// get streams a file, or with limitBytes > 0 no more than its beginning.
	// The reader lives no longer than ctx and is to be closed. The error
	// matches ErrNotFound if there is no such file.
	get(ctx context.Context, name string, limitBytes int64) (io.ReadCloser, error)
	exists(ctx context.Context, name string) (bool, error)
	// close frees what is kept for the next call.
	close()
}
