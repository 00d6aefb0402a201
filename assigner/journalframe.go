package assigner

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/signpost-index/signpost/announce"
)

// The journal file is a header and records. Numbers are big-endian.
//
//	┌────────────┬─────────┬───────┬──────┐
//	│ "signpjnl" │ format4 │ salt8 │ crc4 │                header, 24 bytes
//	└────────────┴─────────┴───────┴──────┘
//	┌───────┬─────────┬──────┬───────┬──────────┐
//	│ mark4 │ length4 │ crc4 │ kind1 │ payload  │            record, 13 bytes and payload
//	└───────┴─────────┴──────┴───────┴──────────┘
//	put:  seq8 time8 flags1 message        an announce, in CBOR with its publisher as OrigPeer
//	done: seq8 publisher                   an owner has that publisher's announces up to seq
//
// The mark is the beginning of the salt, by which the next record is found
// after a damaged one; the crc covers the salt, kind and payload. The salt is
// random and known to nobody else, so that no announce can hold what passes for
// a record.
const (
	journalMagic   = "signpjnl"
	journalFormat  = 1
	journalHeader  = 24
	recordHeader   = 13
	maxRecordBytes = 16 << 10 // of a payload: an announce is cut to less

	recordPut  = 1
	recordDone = 2

	flagDirect   = 1
	flagStranger = 2
)

// errNewerJournal: the file was written by a later version.
var errNewerJournal = errors.New("journal has a newer format: run the version that wrote it, or move the file away")

type salt [8]byte

// newSalt makes a salt nobody can guess.
func newSalt() (s salt) {
	_, _ = rand.Read(s[:]) // it never fails
	return s
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s salt) sum(kind byte, payload []byte) uint32 {
	sum := crc32.Update(0, castagnoli, s[:])
	sum = crc32.Update(sum, castagnoli, []byte{kind})
	return crc32.Update(sum, castagnoli, payload)
}

func (s salt) appendHeader(b []byte) []byte {
	start := len(b)
	b = append(b, journalMagic...)
	b = binary.BigEndian.AppendUint32(b, journalFormat)
	b = append(b, s[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func (s salt) appendRecord(b []byte, kind byte, payload []byte) []byte {
	b = append(b, s[:4]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, s.sum(kind, payload))
	b = append(b, kind)
	return append(b, payload...)
}

// readJournalHeader returns the file's salt. Its error is errNewerJournal, or
// says that the header is damaged.
func readJournalHeader(b []byte) (s salt, err error) {
	if len(b) < journalHeader || string(b[:8]) != journalMagic ||
		crc32.Checksum(b[:journalHeader-4], castagnoli) != binary.BigEndian.Uint32(b[journalHeader-4:]) {
		return s, errors.New("journal's header is damaged")
	}
	if format := binary.BigEndian.Uint32(b[8:]); format != journalFormat {
		return s, fmt.Errorf("%w (%d, this version knows %d)", errNewerJournal, format, journalFormat)
	}
	copy(s[:], b[12:20])
	return s, nil
}

// next returns the record that b begins with, and its bytes; none if that is
// not whole.
func (s salt) next(b []byte) (kind byte, payload []byte, n int) {
	if len(b) < recordHeader || !bytes.Equal(b[:4], s[:4]) {
		return 0, nil, 0
	}
	length := binary.BigEndian.Uint32(b[4:])
	if length > maxRecordBytes || int(length) > len(b)-recordHeader {
		return 0, nil, 0
	}
	kind, payload = b[12], b[recordHeader:recordHeader+int(length)]
	if s.sum(kind, payload) != binary.BigEndian.Uint32(b[8:]) {
		return 0, nil, 0
	}
	return kind, payload, recordHeader + int(length)
}

// scan calls found with the whole records behind the header. It returns how
// many stretches between records were damaged, and the bytes of a torn tail.
func (s salt) scan(b []byte, found func(kind byte, payload []byte)) (damaged, torn int) {
	bad := false
	for len(b) > 0 {
		kind, payload, n := s.next(b)
		if n > 0 {
			if bad {
				damaged++
			}
			bad, torn = false, 0
			found(kind, payload)
			b = b[n:]
			continue
		}
		bad = true
		skip := bytes.Index(b[1:], s[:4]) + 1
		if skip == 0 {
			skip = len(b)
		}
		torn += skip
		b = b[skip:]
	}
	return damaged, torn
}

// journalled is an announce as the journal holds it.
type journalled struct {
	announce.Announce
	seq      uint64
	at       time.Time
	stranger bool // no indexer had the publisher when it came
}

// encodePut is the payload of j, whose seq is filled in later by setSeq.
func encodePut(an announce.Announce, at time.Time) ([]byte, error) {
	m := announce.Message{Cid: an.Head, Addrs: an.Publisher.Addrs, OrigPeer: an.Publisher.ID.String()}
	body, err := m.EncodeCBOR()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 17, 17+len(body))
	binary.BigEndian.PutUint64(b[8:], uint64(at.UnixNano()))
	if an.Direct {
		b[16] = flagDirect
	}
	if len(b)+len(body) > maxRecordBytes {
		return nil, fmt.Errorf("announce of %s: %d bytes are too many", an.Head, len(body))
	}
	return append(b, body...), nil
}

// setSeq completes what encodePut began.
func setSeq(put []byte, seq uint64, stranger bool) {
	binary.BigEndian.PutUint64(put, seq)
	if stranger {
		put[16] |= flagStranger
	} else {
		put[16] &^= flagStranger
	}
}

func decodePut(b []byte) (j journalled, err error) {
	if len(b) < 17 {
		return j, fmt.Errorf("record of %d bytes", len(b))
	}
	m, err := announce.DecodeCBOR(b[17:])
	if err != nil {
		return j, err
	}
	if j.Announce, err = m.Gossiped(""); err != nil {
		return j, err
	}
	if err := j.Publisher.ID.Validate(); err != nil {
		return j, err
	}
	j.seq = binary.BigEndian.Uint64(b)
	j.at = time.Unix(0, int64(binary.BigEndian.Uint64(b[8:])))
	j.Direct, j.stranger = b[16]&flagDirect != 0, b[16]&flagStranger != 0
	return j, nil
}

func encodeDone(publisher peer.ID, seq uint64) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(publisher)), seq)
	return append(b, publisher...)
}

func decodeDone(b []byte) (publisher peer.ID, seq uint64, ok bool) {
	if len(b) <= 8 {
		return "", 0, false
	}
	return peer.ID(b[8:]), binary.BigEndian.Uint64(b), true
}
