// A person's way through the pages with scripts switched off: registration, proof of the address, login, another address,
// consent, a forgotten password. Then what axe-core finds on the pages that no other script visits. Pictures go to SHOTS.
//
//   node account_pages.mjs BASE-URL CLIENT-ID NAME PASSWORD MAIL-FOLDER SHOTS
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { report, require, withPage } from './browser.mjs';

const [base, clientId, name, password, folder, shots] = process.argv.slice(2);
const next = 'sieben blaue Dächer am Hang';
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** The link in the newest mail of a kind to an address, once it is there. */
async function link(kind, to) {
  for (let tries = 0; tries < 500; tries += 1) {
    let files = [];
    try {
      files = readdirSync(folder).filter((file) => file.endsWith(`-${kind}.eml`)).sort().reverse();
    } catch {
      // No mail yet.
    }
    for (const file of files) {
      const text = readFileSync(`${folder}/${file}`, 'utf8').replaceAll('=\r\n', '').replaceAll('=3D', '=');
      const found = text.match(/^https:\/\/\S+$/m);
      if (text.includes(`To: ${to}\r\n`) && found) return found[0];
    }
    await new Promise((later) => setTimeout(later, 20));
  }
  throw new Error(`no mail of the kind ${kind} to ${to}`);
}

const shot = (page, what) => page.screenshot({ path: `${shots}/${what}.png`, fullPage: true });

const callbacks = createServer((request, answer) => answer.end('<!doctype html><title>back</title>back'));
await new Promise((listening) => callbacks.listen(0, '127.0.0.1', listening));
const redirect = `http://127.0.0.1:${callbacks.address().port}/cb`;

const walked = await withPage(
  () => undefined,
  async (page) => {
    const heading = () => page.getByRole('heading', { level: 1 }).innerText();
    const log_in = async (secret) => {
      await page.getByLabel('Name or e-mail address').fill(name);
      await page.getByLabel('Password').fill(secret);
      await page.getByRole('button', { name: 'Log in' }).click();
    };
    await page.goto(`${base}/auth/register`);
    await shot(page, 'register');
    await page.getByLabel('Name').fill(name);
    await page.getByLabel('E-mail address').fill(`${name}@example.com`);
    await page.getByLabel('Password').fill(password);
    await page.getByRole('button', { name: 'Make the account' }).click();
    const registered = await page.getByRole('status').innerText();
    await page.goto(await link('verification', `${name}@example.com`));
    await page.getByRole('button', { name: 'It is mine' }).click();
    const proved = await page.getByRole('status').innerText();
    await page.goto(`${base}/auth/login`);
    await shot(page, 'login');
    await log_in(password);
    await page.getByText(`${name}@example.com`).first().waitFor();
    await shot(page, 'account');
    await page.getByLabel('New address').fill(`${name}@elsewhere.example`);
    await page.getByRole('button', { name: 'Send the link' }).click();
    const asked = await page.getByRole('status').innerText();
    await page.goto(await link('verification', `${name}@elsewhere.example`));
    await page.getByRole('button', { name: 'It is mine' }).click();
    await page.getByText(`${name}@elsewhere.example`).first().waitFor();
    const moved = await heading();
    const query = new URLSearchParams({
      response_type: 'code',
      client_id: clientId,
      redirect_uri: redirect,
      scope: 'notes:read',
      state: 'a',
      code_challenge: createHash('sha256').update('v'.repeat(43)).digest('base64url'),
      code_challenge_method: 'S256',
    });
    await page.goto(`${base}/auth/authorize?${query}`);
    await shot(page, 'consent');
    await page.getByRole('button', { name: 'Allow' }).click();
    await page.waitForURL(`${redirect}?*`);
    const code = new URL(page.url()).searchParams.get('code');
    await page.goto(`${base}/auth/account`);
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('link', { name: 'Forgotten the password?' }).click();
    await page.getByLabel('E-mail address').fill(`${name}@elsewhere.example`);
    await page.getByRole('button', { name: 'Send the link' }).click();
    const sent = await heading();
    await page.goto(await link('reset', `${name}@elsewhere.example`));
    await shot(page, 'reset');
    await page.getByLabel('New password').fill(next);
    await page.getByRole('button', { name: 'Set the password' }).click();
    const set = await page.getByRole('status').innerText();
    await log_in(next);
    return { registered, proved, asked, moved, code, sent, set, end: await heading() };
  },
  { javaScriptEnabled: false, viewport: { width: 600, height: 480 } },
);

const found = {};
const inspected = await withPage(
  () => undefined,
  async (page) => {
    const inspect = async (what) => {
      await page.evaluate(`${axe};undefined`);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      found[what] = violations.map((violation) => ({ id: violation.id, nodes: violation.nodes.map((node) => node.html) }));
    };
    await page.goto(`${base}/auth/email/verify?token=none`);
    await inspect('proof of an address');
    await page.getByRole('button', { name: 'It is mine' }).click();
    await inspect('a link that does not work');
    await page.goto(`${base}/auth/password/reset/confirm?token=none`);
    await inspect('a new password');
    await page.getByLabel('New password').fill(next);
    await page.getByRole('button', { name: 'Set the password' }).click();
    await page.getByRole('alert').waitFor();
    await inspect('a new password by a link that does not work');
    await page.getByLabel('E-mail address').fill('nobody@example.com');
    await page.getByRole('button', { name: 'Send the link' }).click();
    await inspect('a mail is on its way');
    await page.goto(`${base}/auth/login`);
    await page.getByLabel('Name or e-mail address').fill(name);
    await page.getByLabel('Password').fill(next);
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByLabel('New address').fill(`${name}@third.example`);
    await page.getByRole('button', { name: 'Send the link' }).click();
    await page.getByRole('status').waitFor();
    await inspect('an address that is asked for');
    return {};
  },
);
callbacks.close();
report({ walked, inspected, found });
