// A published client, openid-client, through the real pages: discovery, login, consent, tokens, refresh, revocation; and
// what axe-core finds on each page.
//
//   NODE_EXTRA_CA_CERTS=ROOT node oauth_pages.mjs BASE-URL CLIENT-ID NAME PASSWORD
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { report, require, withPage } from './browser.mjs';

const [base, clientId, name, password] = process.argv.slice(2);
const client = await import(require.resolve('openid-client'));
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const found = {};

async function inspect(page, what) {
  await page.evaluate(`${axe};undefined`);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  found[what] = violations.map((violation) => ({ id: violation.id, nodes: violation.nodes.map((node) => node.html) }));
}

const callbacks = createServer((request, answer) => answer.end('<!doctype html><title>back</title>back'));
await new Promise((listening) => callbacks.listen(0, '127.0.0.1', listening));
const redirect_uri = `http://127.0.0.1:${callbacks.address().port}/cb`;

const seen = await withPage(
  () => undefined,
  async (page) => {
    const config = await client.discovery(new URL(base), clientId, undefined, client.None(), { algorithm: 'oauth2' });
    const pkceCodeVerifier = client.randomPKCECodeVerifier();
    const expectedState = client.randomState();
    const url = client.buildAuthorizationUrl(config, {
      redirect_uri,
      scope: 'notes:read',
      state: expectedState,
      code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
      code_challenge_method: 'S256',
    });
    await page.goto(url.href);
    await inspect(page, 'login');
    // By keyboard alone.
    await page.keyboard.press('Tab');
    const first = await page.evaluate(() => document.activeElement?.id);
    await page.keyboard.type(name);
    await page.keyboard.press('Tab');
    await page.keyboard.type('wrong');
    await page.keyboard.press('Enter');
    await page.getByRole('alert').waitFor();
    const alert = await page.getByRole('alert').innerText();
    await inspect(page, 'login again');
    await page.getByLabel('Name or e-mail address').fill(name);
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('button', { name: 'Allow' }).waitFor();
    await inspect(page, 'consent');
    await page.getByRole('button', { name: 'Allow' }).click();
    await page.waitForURL(`${redirect_uri}?*`);
    const tokens = await client.authorizationCodeGrant(config, new URL(page.url()), { pkceCodeVerifier, expectedState });
    const notes = await client.fetchProtectedResource(config, tokens.access_token, new URL(`${base}/notes`), 'GET');
    const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token);
    await client.tokenRevocation(config, refreshed.refresh_token);
    const after = await fetch(`${base}/notes`, { headers: { authorization: `Bearer ${refreshed.access_token}` } });
    for (const path of ['account', 'register', 'password/reset', 'docs']) {
      await page.goto(`${base}/auth/${path}`);
      await inspect(page, path);
    }
    await page.goto(`${base}/auth/account`);
    await page.getByLabel('Name of a new key').fill('reader');
    await page.getByLabel('Its scopes, with spaces between').fill('notes:read');
    await page.getByRole('button', { name: 'Make a key' }).click();
    const key = await page.locator('code.key').innerText();
    await inspect(page, 'new key');
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('button', { name: 'Log in' }).waitFor();
    return {
      first,
      alert,
      scope: tokens.scope,
      notes: notes.status,
      rotated: refreshed.refresh_token !== tokens.refresh_token,
      after: after.status,
      key,
    };
  },
);
callbacks.close();
report({ ...seen, found });
