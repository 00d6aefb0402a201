package ipnisync

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/signpost-index/signpost/ingest/schema"
)

// probeTimeout bounds a probe of all addresses, which are asked side by side.
const probeTimeout = 30 * time.Second

// Verdict is what a [Client.Probe] found, for the provider to act on.
type Verdict struct {
	// Publisher is the peer ID that was asked for.
	Publisher string `json:"publisher"`
	// OK: an indexer can fetch the chain, at one address at least.
	OK bool `json:"ok"`
	// Summary is one sentence for people.
	Summary string `json:"summary"`
	// Head is the CID of the newest advertisement; of the first address that is
	// well, where they differ.
	Head string `json:"head,omitempty"`
	// Addresses has one element for each address, in the order given, at most 16.
	Addresses []AddressVerdict `json:"addresses"`
}

// AddressVerdict is the part of one address.
type AddressVerdict struct {
	// Address is the multiaddr that was given.
	Address string `json:"address"`
	// URL is where the head was asked for; empty for libp2p streams.
	URL string `json:"url,omitempty"`
	// OK: head, newest advertisement and the first block of its entries are there
	// and good.
	OK bool `json:"ok"`
	// Problem is the kind of what is wrong; empty if nothing is.
	Problem Problem `json:"problem,omitempty"`
	// Text says in words what is wrong and what to do, or what is well.
	Text string `json:"text"`
	// Head is the CID of the newest advertisement, once the signed head is good.
	Head string `json:"head,omitempty"`
	// RTTMillis is the time from asking for the head to the answer, connection
	// not included, milliseconds.
	RTTMillis float64 `json:"rtt_ms,omitempty"`
	// HTTP is the version spoken, such as HTTP/2.0.
	HTTP string `json:"http,omitempty"`

	stream bool
}

// Probe asks every address of a publisher for the head, its advertisement and
// the first block of the entries, as an indexer would, and says what is wrong
// with each. It takes 30 s at most; nothing is tried twice.
func (c *Client) Probe(ctx context.Context, info peer.AddrInfo) Verdict {
	v := Verdict{Publisher: info.ID.String(), Addresses: []AddressVerdict{}}
	if err := info.ID.Validate(); err != nil {
		v.Summary = "the publisher has no peer ID"
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	addrs := info.Addrs[:min(len(info.Addrs), maxAddresses)]
	v.Addresses = make([]AddressVerdict, len(addrs))
	var all sync.WaitGroup
	for i, a := range addrs {
		all.Go(func() {
			p := probe{id: info.ID, v: &v.Addresses[i]}
			p.v.Address = a.String()
			p.run(ctx, c, a)
		})
	}
	all.Wait()
	v.summarise(len(info.Addrs) - len(addrs))
	return v
}

// summarise fills in the fields about all addresses; more is how many there are
// that were not asked.
func (v *Verdict) summarise(more int) {
	var usable, good int
	var bad *AddressVerdict
	streamsUnused := v.hasHTTP()
	different := false
	for i := range v.Addresses {
		a := &v.Addresses[i]
		if a.stream && streamsUnused {
			a.Text += "; indexers do not ask it while there are HTTP addresses"
			continue
		}
		usable++
		if !a.OK {
			if bad == nil {
				bad = a
			}
			continue
		}
		good++
		different = different || v.Head != "" && v.Head != a.Head
		if v.Head == "" {
			v.Head = a.Head
		}
	}
	v.OK = good > 0
	switch {
	case usable == 0:
		v.Summary = "no address: announce where the chain is served, such as /dns/example.com/tcp/443/https"
	case bad == nil:
		v.Summary = "all is well: head " + v.Head
	case good == 0:
		v.Summary = fmt.Sprintf("no address serves the chain; %s: %s", bad.Address, bad.Text)
	default:
		v.Summary = fmt.Sprintf("%d of %d addresses serve the chain, head %s; %s: %s", good, usable, v.Head, bad.Address, bad.Text)
	}
	if different {
		v.Summary += "; the addresses have different heads"
	}
	if more > 0 {
		v.Summary += fmt.Sprintf("; indexers ask no more than %d addresses, %d were left out", maxAddresses, more)
	}
}

func (v *Verdict) hasHTTP() bool {
	for _, a := range v.Addresses {
		if a.URL != "" {
			return true
		}
	}
	return false
}

// probe is the probing of one address.
type probe struct {
	id peer.ID
	v  *AddressVerdict
}

// fail records what is wrong.
func (p *probe) fail(problem Problem, format string, args ...any) {
	p.v.Problem, p.v.Text = problem, clip(fmt.Sprintf(format, args...))
}

// clip bounds a text, parts of which come from the other side.
func clip(text string) string {
	const most = 1000 // bytes
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

func (p *probe) run(ctx context.Context, c *Client, a multiaddr.Multiaddr) {
	e := p.endpoint(c, a)
	if e == nil {
		return
	}
	pub := &Publisher{client: c, id: p.id, peer: c.peerOf(p.id), endpoints: []*endpoint{e}, once: true}
	head, answer, err := pub.head(ctx)
	if err != nil {
		p.head(e, err)
		return
	}
	p.v.Head, p.v.HTTP = head.Head.String(), answer.proto
	p.v.RTTMillis = float64(answer.rtt.Microseconds()) / 1000
	ad := p.advertisement(ctx, pub, head.Head)
	if ad == nil || !p.entries(ctx, pub, ad) {
		return
	}
	p.v.OK = true
	p.v.Text = fmt.Sprintf("all is well: head %s, %.1f ms, %s", p.v.Head, p.v.RTTMillis, p.v.HTTP)
}

// endpoint makes of the address what an indexer would, or says why it would not.
func (p *probe) endpoint(c *Client, a multiaddr.Multiaddr) *endpoint {
	if e := c.httpEndpoint(p.id, a); e != nil {
		p.v.URL = e.bases.Load().long.JoinPath("head").String()
		return e
	}
	transport, named := peer.SplitAddr(a)
	switch {
	case named != "" && named != p.id:
		p.fail(ProblemAddress, "the address is that of peer %s, not of %s", named, p.id)
	case hasCircuit(a):
		p.fail(ProblemAddress, "relayed addresses cannot be used; give an address where the publisher itself can be reached")
	case !canDial(transport):
		p.fail(ProblemAddress, "this is neither an HTTP address, such as /ip4/192.0.2.1/tcp/3104/http or /dns/example.com/tcp/443/https,"+
			" nor a libp2p one, such as /ip4/192.0.2.1/tcp/4001")
	case c.streams == nil:
		p.fail(ProblemAddress, "this is a libp2p address, which is not asked from here")
	default:
		p.v.stream = true
		e, err := c.streamEndpoint(peer.AddrInfo{ID: p.id, Addrs: []multiaddr.Multiaddr{a}})
		if err != nil {
			p.fail(ProblemAddress, "%v", err)
			return nil
		}
		return e
	}
	return nil
}

func hasCircuit(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_CIRCUIT)
	return err == nil
}

// head says why there is no signed head.
func (p *probe) head(e *endpoint, err error) {
	var signer *signerError
	switch {
	case errors.Is(err, ErrNoHead):
		p.fail(ProblemEmpty, "the publisher answers and its chain is empty: publish something first")
	case errors.As(err, &signer):
		p.fail(ProblemOtherKey, "the head is signed by %s, but %s was announced: the address is another publisher's, or the peer ID is wrong", signer.signer, p.id)
	case errors.Is(err, schema.ErrBadSignature):
		p.fail(ProblemHeadSignature, "the signature of the head is wrong: %v", err)
	case errors.Is(err, ErrBadHead):
		p.fail(ProblemHead, "what is served as head is not a signed head: %v", err)
	case hasStatus(err, 404, 403):
		p.fail(ProblemNotFound, "status %d: nothing is served at %s, nor without %s; is the path part of the address right?", statusOf(err), p.where(e), Path)
	default:
		p.failed("the head", e, err)
	}
}

// where is what to call the place in a message.
func (p *probe) where(e *endpoint) string {
	if p.v.URL != "" {
		return p.v.URL
	}
	return Path + "/head over " + e.address().String()
}

// advertisement fetches and judges the newest advertisement; nil if it is not
// fit.
func (p *probe) advertisement(ctx context.Context, pub *Publisher, c cid.Cid) *schema.Advertisement {
	block, err := pub.Block(ctx, c, HintAdvertisement)
	if errors.Is(err, ErrNotFound) {
		p.fail(ProblemAdMissing, "the head names advertisement %s, but it is not there (404)", c)
		return nil
	}
	if err != nil {
		p.failed("advertisement "+c.String(), pub.current(), err)
		return nil
	}
	ad, err := schema.DecodeAdvertisement(c, block)
	switch {
	case errors.Is(err, schema.ErrHashMismatch):
		p.fail(ProblemAdHash, "what is served as advertisement %s does not match that CID: are its bytes sent as they were hashed?", c)
		return nil
	case err != nil:
		p.fail(ProblemAd, "advertisement %s cannot be read: %v", c, err)
		return nil
	}
	signer, err := ad.Verify()
	switch {
	case errors.Is(err, schema.ErrBadSignature):
		p.fail(ProblemAdSignature, "the signature of advertisement %s is wrong: %v", c, err)
		return nil
	case err != nil:
		p.fail(ProblemAd, "advertisement %s is not valid: %v", c, err)
		return nil
	}
	if err := ad.CheckIngest(); err != nil {
		p.fail(ProblemAd, "advertisement %s is not valid: %v", c, err)
		return nil
	}
	if provider, err := peer.Decode(ad.Provider); err != nil || signer != provider || p.id != provider {
		p.fail(ProblemNotProvider, "advertisement %s is for provider %s, signed by %s and published by %s:"+
			" indexers take it only if all three are the same, unless they allow any publisher", c, ad.Provider, signer, p.id)
		return nil
	}
	return ad
}

// entries fetches and judges the first block of the advertisement's entries.
func (p *probe) entries(ctx context.Context, pub *Publisher, ad *schema.Advertisement) bool {
	c := ad.Entries
	if ad.IsRm || !c.Defined() || c == schema.NoEntries {
		return true
	}
	block, err := pub.Block(ctx, c, HintEntryChunk)
	if errors.Is(err, ErrNotFound) {
		p.fail(ProblemEntriesMissing, "the newest advertisement has entries %s, but they are not there (404)", c)
		return false
	}
	if err != nil {
		p.failed("entries "+c.String(), pub.current(), err)
		return false
	}
	if err := checkEntries(c, block); err != nil {
		p.fail(ProblemEntries, "entries %s cannot be read: %v", c, err)
		return false
	}
	return true
}

func checkEntries(c cid.Cid, block []byte) error {
	if err := schema.CheckBlock(c, block); err != nil {
		return err
	}
	kind, err := schema.Classify(c, block)
	switch {
	case err != nil:
		return err
	case kind == schema.KindHAMT:
		return nil
	case kind != schema.KindEntryChunk:
		return fmt.Errorf("%w: neither an entry chunk nor a HAMT", schema.ErrMalformed)
	}
	_, err = schema.DecodeEntryChunk(c, block)
	return err
}
