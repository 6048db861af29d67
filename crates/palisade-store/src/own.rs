//! Tables that are the application's own, in the same database: what handlers of the library get.
//!
//! Guide sections 3 and 15. The habits of this crate hold for them too. A statement is made of entities, columns and
//! values, and nothing takes SQL as text; every value is bound; each has the deadline of `[database] timeout`; a read says
//! how many rows it takes at most; SQLite's writers wait for their turn. Palisade's own tables are out of reach: what may
//! be done to accounts is decided in `palisade-identity`, and announced.

use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ConnectionTrait as _, DeleteMany, EntityTrait, FromQueryResult, Insert,
    IntoActiveModel, QuerySelect as _, Schema, Select, UpdateMany,
};

use crate::connection::{bounded, sealed::Sealed};
use crate::{Conn, Error, Result, Store, Tx};

/// What the names of Palisade's own tables begin with.
const OURS: &str = "palisade_";

/// The application's own tables, each statement by itself. A clone is another handle to the same pool.
#[derive(Debug, Clone)]
pub struct Tables(Store);

/// Several statements that are one change: dropped without [`commit`](Self::commit), it never was.
#[derive(Debug)]
pub struct Change(Tx);

impl Store {
    /// The application's own tables.
    pub fn tables(&self) -> Tables {
        Tables(self.clone())
    }
}

impl Tables {
    /// The first row of a query.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn one<E>(&self, select: Select<E>) -> Result<Option<E::Model>>
    where
        E: EntityTrait<Model: FromQueryResult + Sync>,
    {
        one(&self.0, select).await
    }

    /// The rows of a query, at most so many: what strangers can fill is not read whole.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn all<E>(&self, select: Select<E>, at_most: u64) -> Result<Vec<E::Model>>
    where
        E: EntityTrait<Model: FromQueryResult + Sync>,
    {
        foreign::<E>()?;
        let select = select.limit(at_most);
        bounded(Sealed::deadline(&self.0), select.all(Sealed::db(&self.0))).await
    }

    /// Adds a row, and gives it as it is stored.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Conflict`] where something that has to be unique exists already.
    pub async fn insert<A>(&self, row: A) -> Result<<A::Entity as EntityTrait>::Model>
    where
        A: ActiveModelTrait + ActiveModelBehavior + Send,
        <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    {
        let change = self.begin().await?;
        let row = change.insert(row).await?;
        change.commit().await?;
        Ok(row)
    }

    /// Changes the rows that an `update_many` names; says how many.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update<E: EntityTrait>(&self, update: UpdateMany<E>) -> Result<u64> {
        let change = self.begin().await?;
        let rows = change.update(update).await?;
        change.commit().await?;
        Ok(rows)
    }

    /// Deletes the rows that a `delete_many` names; says how many.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete<E: EntityTrait>(&self, delete: DeleteMany<E>) -> Result<u64> {
        let change = self.begin().await?;
        let rows = change.delete(delete).await?;
        change.commit().await?;
        Ok(rows)
    }

    /// Begins a change of several statements.
    ///
    /// # Errors
    /// [`Error`]; waiting for SQLite's one writer ends in [`Error::Away`] as well.
    pub async fn begin(&self) -> Result<Change> {
        self.0.begin().await.map(Change)
    }

    /// Makes the table of an entity where it is not there yet: for SQLite, and for development. On PostgreSQL the role that
    /// serves has no right to, and the owner's own migrations do it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create<E: EntityTrait>(&self, entity: E) -> Result<()> {
        foreign::<E>()?;
        let tx = self.0.begin().await?;
        let mut table = Schema::new(Sealed::db(&tx).get_database_backend()).create_table_from_entity(entity);
        bounded(Sealed::deadline(&tx), Sealed::db(&tx).execute(table.if_not_exists())).await?;
        tx.commit().await.map(drop)
    }
}

impl Change {
    /// As [`Tables::one`], and sees what the change has done so far.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn one<E>(&self, select: Select<E>) -> Result<Option<E::Model>>
    where
        E: EntityTrait<Model: FromQueryResult + Sync>,
    {
        one(&self.0, select).await
    }

    /// As [`Tables::insert`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn insert<A>(&self, row: A) -> Result<<A::Entity as EntityTrait>::Model>
    where
        A: ActiveModelTrait + ActiveModelBehavior + Send,
        <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    {
        foreign::<A::Entity>()?;
        bounded(Sealed::deadline(&self.0), Insert::one(row).exec_with_returning(Sealed::db(&self.0))).await
    }

    /// As [`Tables::update`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update<E: EntityTrait>(&self, update: UpdateMany<E>) -> Result<u64> {
        foreign::<E>()?;
        let done = bounded(Sealed::deadline(&self.0), update.exec(Sealed::db(&self.0))).await?;
        Ok(done.rows_affected)
    }

    /// As [`Tables::delete`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete<E: EntityTrait>(&self, delete: DeleteMany<E>) -> Result<u64> {
        foreign::<E>()?;
        let done = bounded(Sealed::deadline(&self.0), delete.exec(Sealed::db(&self.0))).await?;
        Ok(done.rows_affected)
    }

    /// Makes it so, for good.
    ///
    /// # Errors
    /// [`Error`]. After [`Error::Away`] it is not known whether it took place.
    pub async fn commit(self) -> Result<()> {
        self.0.commit().await.map(drop)
    }
}

async fn one<E>(conn: &impl Conn, select: Select<E>) -> Result<Option<E::Model>>
where
    E: EntityTrait<Model: FromQueryResult + Sync>,
{
    foreign::<E>()?;
    bounded(Sealed::deadline(conn), select.one(Sealed::db(conn))).await
}

/// Refuses an entity that somebody has made for a table of ours: its secrets, and changes that nobody would hear of.
fn foreign<E: EntityTrait>() -> Result<()> {
    let entity = E::default();
    let name = entity.table_name();
    if name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS)) {
        return Err(Error::Failed(format!("`{name}` is a table of Palisade's own")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sea_orm::ActiveValue::Set;
    use sea_orm::entity::prelude::*;
    use sea_orm::sea_query::Expr;

    use super::*;
    use crate::Options;

    mod note {
        use sea_orm::entity::prelude::*;

        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "note")]
        pub(super) struct Model {
            #[sea_orm(primary_key)]
            pub(super) id: i64,
            pub(super) owner: String,
            #[sea_orm(unique)]
            pub(super) text: String,
        }

        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub(super) enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    }

    mod thief {
        use sea_orm::entity::prelude::*;

        #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
        #[sea_orm(table_name = "Palisade_user")]
        pub(super) struct Model {
            #[sea_orm(primary_key, auto_increment = false)]
            pub(super) id: Uuid,
            pub(super) password: Option<String>,
        }

        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub(super) enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    }

    fn of(owner: &str, text: &str) -> note::ActiveModel {
        note::ActiveModel { owner: Set(owner.into()), text: Set(text.into()), ..Default::default() }
    }

    async fn tables() -> (tempfile::TempDir, Tables) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&Options::sqlite(folder.path().join("p.db"))).await.unwrap();
        store.migrate().await.unwrap();
        let tables = store.tables();
        tables.create(note::Entity).await.unwrap();
        tables.create(note::Entity).await.unwrap();
        (folder, tables)
    }

    #[tokio::test]
    async fn rows_are_added_read_changed_and_deleted() {
        let (_folder, tables) = tables().await;
        // What would end a statement is a value like any other.
        let text = "'); DROP TABLE note; --";
        let row = tables.insert(of("ann", text)).await.unwrap();
        assert_eq!((row.owner.as_str(), row.text.as_str()), ("ann", text));
        tables.insert(of("bob", "his")).await.unwrap();
        assert!(matches!(tables.insert(of("bob", "his")).await, Err(Error::Conflict(_))));
        let hers = || note::Entity::find().filter(note::Column::Owner.eq("ann"));
        assert_eq!(tables.all(hers(), 10).await.unwrap(), std::slice::from_ref(&row));
        assert_eq!(tables.all(note::Entity::find(), 1).await.unwrap().len(), 1, "at most so many");
        let update = note::Entity::update_many().col_expr(note::Column::Text, Expr::value("new"));
        assert_eq!(tables.update(update.filter(note::Column::Id.eq(row.id))).await.unwrap(), 1);
        assert_eq!(tables.one(hers()).await.unwrap().unwrap().text, "new");
        assert_eq!(tables.delete(note::Entity::delete_many().filter(note::Column::Owner.eq("ann"))).await.unwrap(), 1);
        assert_eq!(tables.one(hers()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_change_is_whole_or_never_was() {
        let (_folder, tables) = tables().await;
        let change = tables.begin().await.unwrap();
        change.insert(of("ann", "one")).await.unwrap();
        assert!(change.one(note::Entity::find()).await.unwrap().is_some(), "it sees itself");
        drop(change);
        assert_eq!(tables.one(note::Entity::find()).await.unwrap(), None);
        let change = tables.begin().await.unwrap();
        change.insert(of("ann", "one")).await.unwrap();
        change.insert(of("ann", "two")).await.unwrap();
        change.commit().await.unwrap();
        assert_eq!(tables.all(note::Entity::find(), 10).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn tables_of_ours_are_out_of_reach() {
        let (_folder, tables) = tables().await;
        assert!(matches!(tables.one(thief::Entity::find()).await, Err(Error::Failed(why)) if why.contains("own")));
        assert!(tables.all(thief::Entity::find(), 1).await.is_err());
        assert!(tables.delete(thief::Entity::delete_many()).await.is_err());
        let update = thief::Entity::update_many().col_expr(thief::Column::Password, Expr::value("x"));
        assert!(tables.update(update).await.is_err());
        let row = thief::ActiveModel { id: Set(Uuid::nil()), password: Set(None) };
        assert!(tables.insert(row).await.is_err());
        assert!(tables.create(thief::Entity).await.is_err());
    }
}
