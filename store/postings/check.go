package postings

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Damage is a bucket that cannot be read.
type Damage struct {
	Key    []byte // of the bucket
	Region int
	Err    error
}

// Check reads every bucket and calls fn for each that is damaged; fn's error
// ends it. Buckets that cannot be read cost no others. Puts and finds go on
// meanwhile; splits and flushes wait for the region that is being read.
func (x *Index) Check(ctx context.Context, fn func(Damage) error) error {
	if err := x.enter(); err != nil {
		return err
	}
	defer x.leave()
	for region := range regions {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := x.checkRegion(region, fn); err != nil {
			return err
		}
	}
	return nil
}

func (x *Index) checkRegion(region int, fn func(Damage) error) error {
	x.ingesting.Lock()
	defer x.ingesting.Unlock()
	if x.scan(region, func(Hash, uint, []posting) error { return nil }) == nil {
		return nil
	}
	// Something is wrong: find out which, one by one.
	width := x.meta.Load().regions[region].width
	for n := range uint64(1) << (width - 8) {
		h := Hash{byte(region)}
		binary.BigEndian.PutUint64(h[1:9], n<<(72-width))
		key := bucketKey(nil, &h, width)
		if err := x.checkBucket(key, width); err != nil {
			if err := fn(Damage{Key: key, Region: region, Err: err}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (x *Index) checkBucket(key []byte, width uint) error {
	value, err := x.rawBucket(key)
	if err == nil {
		_, _, err = decode(nil, value, HashBits-width, nil)
	}
	return err
}

// rawBucket returns a copy of the value at a bucket key, nil if there is none.
func (x *Index) rawBucket(key []byte) ([]byte, error) {
	value, closer, err := x.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read bucket %x: %w", key, err)
	}
	return bytes.Clone(value), closer.Close()
}
