"use strict";
(() => {
	const live = document.getElementById("live"), stale = document.getElementById("stale"), outcome = document.getElementById("outcome");
	const tokenForm = document.getElementById("token"), forget = document.getElementById("forget"), dialog = document.getElementById("ask");
	const key = "signpost-admin-token", every = 2000, slowest = 30000, patience = 15000;
	let token = "", timer, looking = false, seen = new Date(), pending = null;
	try { token = sessionStorage.getItem(key) || ""; } catch { /* then it is for this page only */ }

	const setToken = text => {
		token = text;
		try { text ? sessionStorage.setItem(key, text) : sessionStorage.removeItem(key); } catch { /* as above */ }
	};
	const say = (text, bad) => {
		outcome.textContent = text;
		outcome.className = bad ? "bad" : "note";
		outcome.hidden = !text;
	};
	const ask = (url, options) => fetch(url, {
		...options, cache: "no-store", credentials: "omit", redirect: "error",
		headers: token ? {Authorization: "Bearer " + token} : {}, signal: AbortSignal.timeout(patience),
	});

	// morph makes old like now, and leaves alone what is so already: what has the
	// focus, or is being pressed, stays.
	const morph = (old, now) => {
		for (const {name} of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
		for (const {name, value} of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
		const had = [...old.childNodes], has = [...now.childNodes];
		has.forEach((n, i) => {
			const o = had[i];
			if (!o) old.append(n);
			else if (o.nodeName !== n.nodeName) o.replaceWith(n);
			else if (n.nodeType === Node.ELEMENT_NODE) morph(o, n);
			else if (o.data !== n.data) o.data = n.data;
		});
		had.slice(has.length).forEach(n => n.remove());
	};
	const access = () => {
		if (!tokenForm) return;
		const operates = live.dataset.access === "operate";
		tokenForm.hidden = operates;
		forget.hidden = !operates;
	};
	const look = async () => {
		const url = new URL(location.href);
		url.searchParams.set("part", "live");
		try {
			const answer = await ask(url);
			if (answer.status === 401 && token) {
				setToken("");
				say("The token was refused.", true);
				return look();
			}
			if (!answer.ok) throw new Error("status " + answer.status);
			const now = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
			if (!now) throw new Error("no part of this page");
			morph(live, now);
			access();
			seen = new Date();
			stale.hidden = true;
		} catch {
			stale.textContent = "The assigner has not answered since " + seen.toLocaleTimeString() + ": what is shown may no longer be so.";
			stale.hidden = false;
		}
	};
	const tick = async () => {
		clearTimeout(timer);
		if (looking) return;
		looking = true;
		const began = performance.now();
		if (!document.hidden) await look();
		looking = false;
		timer = setTimeout(tick, Math.min(Math.max(every, 4 * (performance.now() - began)), slowest));
	};

	const act = async ({does, field}, reason, value) => {
		const [method, path] = does.split(" "), url = new URL(path, location.href);
		url.searchParams.set("by", "the pool page");
		if (reason) url.searchParams.set("reason", reason);
		if (field && field !== "body") url.searchParams.set(field, value);
		try {
			const answer = await ask(url, {method, body: field === "body" ? value : undefined});
			const text = await answer.text();
			if (answer.ok) {
				const done = JSON.parse(text);
				say(done.Text + (done.Note ? " (" + done.Note + ")" : ""), false);
			} else say("Not done: " + (text.trim() || "status " + answer.status), true);
		} catch {
			say("The assigner did not answer; whether it is done is not known.", true);
		}
		tick();
	};
	document.addEventListener("click", e => {
		const b = e.target.closest("button[data-do]");
		if (!b || b.disabled) return;
		pending = {does: b.dataset.do, field: b.dataset.field};
		const form = dialog.querySelector("form");
		form.reset();
		document.getElementById("question").textContent = b.dataset.ask;
		document.getElementById("field").hidden = !pending.field;
		form.value.required = Boolean(pending.field);
		document.getElementById("fieldlabel").textContent = b.dataset.label || "";
		document.getElementById("yes").textContent = b.textContent;
		dialog.returnValue = "";
		dialog.showModal();
	});
	dialog.addEventListener("close", () => {
		const form = dialog.querySelector("form"), asked = pending;
		pending = null;
		if (dialog.returnValue === "yes" && asked) act(asked, form.reason.value.trim(), form.value.value.trim());
	});
	if (tokenForm) {
		tokenForm.addEventListener("submit", e => {
			e.preventDefault();
			setToken(tokenForm.token.value.trim());
			tokenForm.reset();
			say("", false);
			tick();
		});
		forget.addEventListener("click", () => { setToken(""); tick(); });
		tokenForm.hidden = false;
	}
	document.addEventListener("visibilitychange", () => { if (!document.hidden) tick(); });
	tick();
})();
